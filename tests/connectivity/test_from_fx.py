"""The wiring of PyTorch modules: published networks, and what must not make a path."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torchvision import models

from tests.growth.own_networks import Branching
from tinygrow.architecture import Architecture
from tinygrow.connectivity.from_export import from_module_or_export
from tinygrow.connectivity.from_fx import UnreadableError, from_module
from tinygrow.connectivity.paths import in_series
from tinygrow.connectivity.segments import Wiring, wirings
from tinygrow.errors import TinygrowError
from tinygrow.networks.build import build_network


def wiring(network: nn.Module, *shapes: tuple[int, ...]) -> Wiring:
    device = next(network.parameters()).device
    examples = [torch.zeros(2, *shape, device=device) for shape in shapes or [(4,)]]
    (found,) = wirings(from_module(network, *examples))
    return found


def histograms(found: Wiring) -> list[tuple[int, ...]]:
    return [segment.paths.counts for segment in found.segments]


class Written(nn.Module):
    """A forward pass around two linear layers."""

    def __init__(self, forward: Callable[[nn.Module, torch.Tensor], object]) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.written = forward

    def forward(self, x: torch.Tensor) -> object:
        return self.written(self, x)


class CifarResNet(nn.Module):
    """ResNet-20's shape: stem, three stages of three blocks, read-out."""

    def __init__(self, projected: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 1, 3, padding=1)
        self.pairs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Conv2d(1, 1, 1)) for _ in range(9)
        )
        self.shortcuts = nn.ModuleDict(
            {str(i): nn.Conv2d(1, 1, 1) if projected else nn.AvgPool2d(1) for i in (3, 6)}
        )
        self.head = nn.Linear(1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        for i, pair in enumerate(self.pairs):
            x = (pair(x) + (self.shortcuts[str(i)](x) if i in (3, 6) else x)).relu()
        return self.head(x.mean((2, 3)))


def test_published_networks() -> None:
    with torch.device("meta"):
        resnet18, resnet34, vgg16 = models.resnet18(), models.resnet34(), models.vgg16()
    found = wiring(resnet18, (3, 64, 64))
    assert found.paths.total == 2**8
    assert found.paths.effective_depth == Fraction(23, 2)
    assert found.paths.effective_width == Fraction(512, 23)
    assert (found.paths.shortest, found.paths.longest) == (5, 18)
    block, down = (1, 0, 1), (0, 1, 1)
    right = [(0, 1), block, block, down, block, down, block, down, block, (0, 1)]
    assert histograms(found) == right
    assert [s.has_identity_path for s in found.segments] == [h == block for h in right]
    assert in_series(found.depths) == found.paths
    body = in_series(found.depths[1:-1])  # without stem and read-out
    assert (body.effective_depth, body.effective_width) == (Fraction(19, 2), Fraction(512, 19))
    inner = found.segments[1]
    assert (inner.values[0].name, inner.values[-1].name) == ("maxpool", "add")
    assert inner.layers == ("layer1.0.conv1", "layer1.0.conv2") and inner.has_norm

    found = wiring(resnet34, (3, 64, 64))
    assert found.paths.total == 2**16
    assert found.paths.effective_depth == Fraction(39, 2)
    assert found.paths.effective_width == Fraction(131072, 39)

    found = wiring(vgg16, (3, 32, 32))
    assert histograms(found) == [(0,) * 16 + (1,)]
    assert found.segments[0].layers[0] == "features.0" and not found.segments[0].has_norm


@pytest.mark.parametrize(
    ("projected", "depth", "width", "shortest"),
    [(False, 11, Fraction(512, 11), 2), (True, 12, Fraction(128, 3), 4)],
)
def test_cifar_resnet20(projected: bool, depth: int, width: Fraction, shortest: int) -> None:
    found = wiring(CifarResNet(projected), (3, 4, 4)).paths
    assert (found.total, found.effective_depth, found.effective_width) == (512, depth, width)
    assert (found.shortest, found.longest) == (shortest, 20)


def test_widths_change_nothing() -> None:
    narrow = Architecture(
        kind="resnet",
        input_shape=(3, 8, 8),
        classes=3,
        stage_widths=(1, 2),
        blocks=(2, 1),
        middle_widths=(1, 1, 1),
    )
    wide = replace(narrow, stage_widths=(8, 16), middle_widths=(8, 3, 16), classes=7)
    one, other = (wiring(build_network(a), (3, 8, 8)) for a in (narrow, wide))
    assert one.depths == other.depths and one.paths == other.paths
    assert histograms(one) == [(0, 1), (1, 0, 1), (1, 0, 1), (0, 1), (1, 0, 1), (0, 1)]


@pytest.mark.parametrize(
    ("forward", "right"),
    [
        # Functions of one value, by any name, are one edge; sums of branches are two paths.
        (lambda m, x: m.two(m.one(x) * m.one(x).sigmoid()), (0, 0, 2)),
        (lambda m, x: m.two((y := m.one(x)) * y.sigmoid()), (0, 0, 1)),
        (lambda m, x: m.two((y := m.one(x)) - y.mean(1, keepdim=True)), (0, 0, 1)),
        (lambda m, x: m.two((y := m.one(x)) / (y * y).mean(1, keepdim=True)), (0, 0, 1)),
        (lambda m, x: m.two((y := m.one(x)) + y.abs()), (0, 0, 2)),
        (lambda m, x: m.two((y := m.one(x)) + y), (0, 0, 2)),
        (lambda m, x: x + m.two(m.one(x)), (1, 0, 1)),
        (lambda m, x: m.one(x) + m.two(x), (0, 2)),
        (lambda m, x: torch.cat([x, m.two(m.one(x))], 1), (1, 0, 1)),
        (lambda m, x: m.two(torch.cat([(y := m.one(x))[:, 1:], y[:, :1]], 1)), (0, 0, 1)),
        (lambda m, x: torch.cat([(y := m.one(x).relu())[:, 1:], y.abs()], 1), (0, 2)),
        (lambda m, x: x * torch.sigmoid(m.two(m.one(x))), (1, 0, 1)),
        # Shapes and constants are no paths, stored tensors are layers where data meets them.
        (lambda m, x: m.two(m.one(x)).view(x.size(0), x.shape[1]), (0, 0, 1)),
        (lambda m, x: m.two(m.one(x)) + torch.zeros_like(x), (0, 0, 1)),
        (lambda m, x: m.two(m.one(x)) * m.weight.mean(), (0, 0, 1)),
        (lambda m, x: F.linear(m.one(x), m.two.weight), (0, 0, 1)),
        (lambda m, x: m.two(m.one(x)) @ (m.weight * 2).t(), (0, 0, 0, 1)),
        (lambda m, x: m.one(m.two(m.one(x))), (0, 0, 0, 1)),
        (lambda m, x: m.two(m.one(x)).chunk(2, 1)[0], (0, 0, 1)),
        # What works in place changes what is read later by the old name.
        (lambda m, x: ((y := m.one(x)).add_(x), m.two(y))[1], (0, 1, 1)),
        (lambda m, x: (x.add_(m.one(x)), m.two(x))[1], (0, 1, 1)),
    ],
)
def test_paths_of(forward: Callable, right: tuple[int, ...]) -> None:
    found = wiring(Written(forward))
    assert found.paths.counts == right
    assert not found.dead


def test_attention_is_marked_and_two_inputs_are_one_source() -> None:
    network = Written(lambda m, x: m.two(m.one(x) @ (m.one(x).t() @ x)))
    (segment, *_) = wiring(network).segments
    assert segment.foreign_merges == ("attention",)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.one(x) + y

    assert wiring(Two(), (4,), (4,)).paths.counts == (1, 1)


def test_packed_attention_counts_its_two_projections() -> None:
    class Own(nn.Module):
        def __init__(self, other: bool) -> None:
            super().__init__()
            self.attention, self.other = nn.MultiheadAttention(4, 2, batch_first=True), other

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            read = x.flip(1) if self.other else x
            return self.attention(x, read, read, need_weights=False)[0]

    assert wiring(Own(False), (3, 4)).paths.counts == (0, 0, 1)
    assert wiring(Own(True), (3, 4)).paths.counts == (0, 0, 2)
    assert wiring(Own(True), (3, 4)).segments[0].foreign_merges == ("attention",)


def test_each_output_has_its_own_paths() -> None:
    network = Written(lambda m, x: {"deep": m.two(m.one(x)), "both": [x, m.one(x)]})
    found = {w.output: w.paths.counts for w in wirings(from_module(network, torch.zeros(2, 4)))}
    assert found == {"deep": (0, 0, 1), "both[0]": (1,), "both[1]": (0, 1)}


def test_dead_layers_are_named() -> None:
    def dropped(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        m.two(x)
        return m.one(x)

    graph = from_module(Written(dropped), torch.zeros(2, 4))
    assert wirings(graph)[0].dead == ("two",) and graph.idle == ()
    graph = from_module(Written(lambda m, x: m.one(x)), torch.zeros(2, 4))
    assert wirings(graph)[0].dead == () and graph.idle == ("two",)
    helper = Written(lambda m, x: (m.one(x), m.two(x)) if m.training else m.one(x))
    assert from_module(helper, torch.zeros(2, 4)).idle == ()


def test_the_network_stays_as_it_was() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    wiring(network)
    assert all(module.training for module in network.modules())
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


@fx.wrap
def projected(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x @ weight


def test_what_cannot_be_traced_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnreadableError, match="cannot follow the network's code"):
        from_module(Branching(), torch.zeros(2, 4))
    with pytest.raises(TinygrowError, match=r"does not run on \(2, 5\)"):
        from_module(nn.Linear(4, 4), torch.zeros(2, 5))
    layer = nn.Sequential(nn.TransformerEncoderLayer(4, 2), nn.Linear(4, 4))
    with pytest.raises(UnreadableError, match="0 is a TransformerEncoderLayer, which torch"):
        from_module(layer, torch.zeros(2, 3, 4))

    both = Written(lambda m, x: m.bilinear(x, m.one(x)))
    both.bilinear = nn.Bilinear(4, 4, 4)
    with pytest.raises(UnreadableError, match="bilinear is bilinear, a layer of two inputs"):
        from_module(both, torch.zeros(2, 4))
    with pytest.raises(UnreadableError, match="bilinear is bilinear, a layer of two inputs"):
        from_module(Written(lambda m, x: F.bilinear(x, x, m.weight[None])), torch.zeros(2, 4))
    network = Written(lambda m, x: projected(m.one(x), m.weight))
    with pytest.raises(UnreadableError, match=r"projected reads weight, and torch\.fx"):
        from_module(network, torch.zeros(2, 4))

    def refuses(*_: object, **__: object) -> None:
        raise RuntimeError("step 3") from ValueError("no way\nand much more")

    monkeypatch.setattr(torch.onnx, "export", refuses)
    with pytest.raises(TinygrowError, match=r"cannot export it to ONNX either \(no way\)"):
        from_module_or_export(Branching(), torch.zeros(2, 4))


def test_an_export_stands_in_for_what_cannot_be_traced() -> None:
    network = Written(lambda m, x: m.two(m.one(x)) + x if x.shape[0] > 1 else x)
    graph = from_module_or_export(network, torch.zeros(2, 4))
    assert wirings(graph)[0].paths.counts == (1, 0, 1)
    assert graph.origin.startswith("ONNX, for torch.fx cannot follow the network's code")
    assert not graph.norms_known
