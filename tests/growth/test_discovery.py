import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from tests.growth.own_networks import Branching, Lenet, PreActivation
from tests.growth.scenes import perceptron, resnet
from tinygrow import TinygrowError, find_sites
from tinygrow.growth.pooling import AdaptivePooling, WindowPooling
from tinygrow.growth.resize import resize
from tinygrow.growth.sites import sites_of

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def reasons(network: nn.Module, x: torch.Tensor = IMAGES) -> dict[str, str]:
    return {refusal.layer: refusal.why for refusal in find_sites(network, x).refused}


@pytest.mark.parametrize("kind", ["resnet", "mlp"])
def test_the_networks_built_in_have_the_sites_that_are_written_down(kind: str) -> None:
    network, architecture = (
        resnet((4, 8, 16), (1, 2, 3)) if kind == "resnet" else perceptron((4, 5, 6))
    )

    found = find_sites(network, IMAGES)

    assert list(found) == sites_of(architecture)
    assert found.widths == architecture.middle_widths
    layers = {n for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert {site.first for site in found} | {r.layer for r in found.refused} == layers


def test_functions_and_methods_are_seen_through() -> None:
    found = find_sites(Lenet(), IMAGES)

    pairs = [(site.first, site.second) for site in found]
    assert pairs == [("conv1", "conv2"), ("conv2", "fc1"), ("fc1", "fc2"), ("fc2", "fc3")]
    assert found[0].poolings == (WindowPooling((2, 2), (1, 1), ceil_mode=True, maximum=True),)
    assert found[1].poolings == (AdaptivePooling((3, None)), WindowPooling((1, 3), (1, 1)))
    assert [bool(site.note) for site in found] == [True, False, False, False]
    assert found.widths == (4, 5, 6, 7)


def test_a_shape_written_into_the_code_is_found_out_by_trying() -> None:
    found = find_sites(Lenet(hard_coded=True), IMAGES)

    assert [site.first for site in found] == ["conv1", "fc1", "fc2"]
    assert "once it is wider" in {r.layer: r.why for r in found.refused}["conv2"]


def test_the_network_and_its_mode_are_left_alone() -> None:
    network, _ = resnet()
    network.train()
    before = copy.deepcopy(network.state_dict())

    find_sites(network, IMAGES)

    assert all(module.training for module in network.modules())
    after = network.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_norms_before_convolutions_belong_to_the_path() -> None:
    (site,) = find_sites(PreActivation(), IMAGES)

    assert (site.first, site.norms, site.second) == ("conv1", ("norm2",), "conv2")


def test_several_norms_and_one_behind_a_flattened_map() -> None:
    network = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.BatchNorm1d(36)),
        nn.Linear(36, 3),
    )

    (site,) = find_sites(network, IMAGES)

    assert (site.norm, site.further_norms) == ("1", ("4", "6"))
    assert site.norms == ("1", "4", "6")
    x = torch.randn(3, 3, 8, 8)
    network.eval()
    before = network(x)
    resize(network, site, 6)
    torch.testing.assert_close(network(x), before)
    assert network[6].num_features == network[7].in_features == 54


class Pair(nn.Module):
    """conv1, an operation, conv2, a head; what is between is the test's."""

    def __init__(self, between, second: nn.Module | None = None) -> None:
        super().__init__()
        self.between = between
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.conv2 = second or nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv2(self.between(self.conv1(x)))
        return self.head(x.mean((2, 3)))


def twice(x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x) + x


def shape_read(x: torch.Tensor) -> torch.Tensor:
    return x * (torch.ones(1) * x.shape[1])


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def circular() -> nn.Module:
    return nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")


@pytest.mark.parametrize(
    ("between", "second", "says"),
    [
        (nn.GroupNorm(2, 4), None, "between (GroupNorm) couples its channels"),
        (nn.LayerNorm((4, 8, 8)), None, "between (LayerNorm) couples its channels"),
        (lambda x: F.layer_norm(x, (4, 8, 8)), None, "layer_norm couples its channels"),
        (lambda x: x.softmax(1), None, "softmax couples its channels"),
        (nn.PReLU(4), None, "unknown operation between (PReLU)"),
        (nn.MaxPool2d(2, dilation=2), None, "unknown operation between (MaxPool2d)"),
        (lambda x: x.flip(1), None, "unknown operation flip"),
        (lambda x: x.reshape(-1, 4, 4, 16), None, "reshapes"),
        (twice, None, "several consumers read its outputs: relu, add (a residual stream)"),
        (lambda x: torch.cat([x, x], 1)[:, :4], None, "concatenated"),
        (Scale(), None, "multiplied by another value"),
        (shape_read, None, "its size is used in mul"),
        (nn.Identity(), nn.Conv2d(4, 4, 3, groups=2), "conv2 is a grouped convolution (groups=2)"),
        (nn.Identity(), circular(), "circular"),
        (nn.Identity(), nn.ConvTranspose2d(4, 4, 2), "conv2 is a ConvTranspose2d"),
    ],
)
def test_each_layer_that_may_not_grow_has_its_reason(
    between: nn.Module, second: nn.Module | None, says: str
) -> None:
    network = Pair(between, second)
    assert says in reasons(network)["conv1"]


def test_element_wise_operations_with_numbers_are_no_obstacle() -> None:
    network = Pair(lambda x: ((x * 2 + 1).clamp(-1, 1) / 3).tanh_() + 0.5)
    assert find_sites(network, IMAGES)[0].first == "conv1"


def test_shared_modules_and_weights_are_refused() -> None:
    layer = nn.Linear(4, 4)
    called_twice = nn.Sequential(nn.Linear(4, 4), layer, nn.ReLU(), layer, nn.Linear(4, 2))
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    tied[1].weight = tied[0].weight
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    parametrised = nn.Sequential(normed, nn.ReLU(), nn.Linear(4, 2))
    hooked = nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 4)), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(2, 4)

    assert "called 2 times" in reasons(called_twice, x)["1"]
    assert "called 2 times" in reasons(called_twice, x)["0"]  # whose outputs it reads
    assert reasons(tied, x)["0"] == "0 shares its weights with 1"
    assert "forward pass of its own" in reasons(parametrised, x)["0"]
    assert "forward pass of its own" in reasons(hooked, x)["0"]


class Reads(nn.Module):
    """Reads a layer's weight beside the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.relu(self.one(x))) + (self.one.weight**2).sum()


def test_weights_read_outside_of_their_layer_are_refused() -> None:
    assert "read outside of it" in reasons(Reads(), torch.randn(2, 4))["one"]


def test_what_cannot_be_copied_or_looked_into_is_told() -> None:
    plain, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), torch.randn(2, 4)
    for wrapped in (nn.DataParallel(plain), torch.compile(plain)):
        (refusal,) = find_sites(wrapped, x).refused
        assert f"wrapped in a {type(wrapped).__name__}" in refusal.why
    assert len(find_sites(plain, x)) == 1

    prune.random_unstructured(plain[0], "weight", 0.5)
    found = find_sites(plain, x)
    assert not found.sites
    assert "cannot be copied" in found.refused[0].why


def test_what_hangs_on_data_is_told_and_never_raises() -> None:
    x = torch.randn(2, 4)
    found = find_sites(Branching(), x)
    assert len(found) == 0
    assert "hangs on data" in found.refused[0].why

    inside = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), Branching())
    found = find_sites(inside, x)
    assert [site.first for site in found] == ["0"]
    why = {r.layer: r.why for r in found.refused}
    assert "unknown operation 3 (Branching)" in why["2"]
    assert "the code of 3 hangs on data" in why["3.one"]


@pytest.mark.parametrize("example", [(torch.zeros(1, 3),), "image", torch.tensor(1.0)])
def test_an_example_that_is_no_batch_is_refused(example: object) -> None:
    with pytest.raises(TinygrowError, match=r"example_input is a \w+; it must be one tensor"):
        find_sites(nn.Linear(3, 2), example)  # type: ignore[arg-type]


def test_a_network_that_does_not_run_is_told() -> None:
    found = find_sites(nn.Linear(4, 2), torch.randn(2, 5))
    assert not found.sites
    assert "does not run on the example input" in found.refused[0].why


def test_modules_of_pytorch_and_unused_layers_are_told() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(4, 1)
            self.unused = nn.Linear(4, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.attention(x, x, x)[0])

    why = reasons(Odd(), torch.randn(2, 4))
    assert "inside of attention" in why["attention.out_proj"]
    assert "does not call it" in why["unused"]


def test_it_prints_as_two_tables() -> None:
    text = str(find_sites(Lenet(), IMAGES))
    lines = text.splitlines()
    assert lines[0] == "4 widths may grow"
    assert lines[2].split()[:5] == ["1", "4", "conv1", "->", "conv2"]
    assert lines[2].endswith("the average stands for it")
    assert lines[-1].split() == ["fc3", *["its", "outputs", "are", "the", "network's", "own"]]
