import json
import pickle
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.checkpoint import FORMAT, load_checkpoint, require_fit, save_checkpoint
from tinygrow.data.prepared import DataCard
from tinygrow.errors import TinygrowError
from tinygrow.networks.build import build_network

RESNET = Architecture(
    kind="resnet",
    input_shape=(1, 6, 6),
    classes=3,
    stage_widths=(3, 4),
    blocks=(1, 1),
    middle_widths=(2, 5),
)
MLP = Architecture(kind="mlp", input_shape=(1, 6, 6), classes=3, middle_widths=(4, 2))
NOTES = {
    "model": "démo",
    "seed": 3,
    "growth": {"widths": [1, 2], "rate": 0.1, "small": 1e-30, "none": None, "yes": True},
}


def trained(architecture: Architecture, seed: int = 0) -> nn.Module:
    """A network whose every number, running statistics included, is its own."""
    network = build_network(architecture, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand(value.shape, generator=generator))
            else:
                value.fill_(17)
    return network


def save(path: Path, architecture: Architecture = RESNET, **notes: Any) -> nn.Module:
    network = trained(architecture)
    save_checkpoint(path, architecture, network, notes or NOTES)
    return network


@pytest.mark.parametrize("architecture", [RESNET, MLP])
def test_comes_back_bit_by_bit(architecture: Architecture, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "network.safetensors"
    network = save(path, architecture)
    loaded = load_checkpoint(path)
    assert loaded.architecture == architecture
    assert loaded.notes == NOTES
    assert not loaded.network.training
    ours, theirs = network.state_dict(), loaded.network.state_dict()
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        assert theirs[name].dtype == value.dtype
        assert value.numpy().tobytes() == theirs[name].numpy().tobytes(), name
    x = torch.rand(4, *architecture.input_shape)
    assert torch.equal(network.eval()(x), loaded.network(x))


def test_unusual_numbers_come_back(tmp_path: Path) -> None:
    network = trained(MLP)
    odd = torch.tensor([torch.nan, torch.inf, -torch.inf, -0.0])
    with torch.no_grad():
        network.layers[0].bias.copy_(odd)
    save_checkpoint(tmp_path / "n", MLP, network, {})
    back = load_checkpoint(tmp_path / "n").network.layers[0].bias
    assert back.detach().numpy().tobytes() == odd.numpy().tobytes()


def test_the_same_values_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / name)
    reordered = dict(reversed(NOTES.items()))
    layout = trained(RESNET).to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "c", RESNET, layout.eval(), reordered)
    contents = {(tmp_path / name).read_bytes() for name in "abc"}
    assert len(contents) == 1
    save(tmp_path / "d", seed=4)
    assert (tmp_path / "d").read_bytes() not in contents


def test_saving_again_what_was_loaded_changes_nothing(tmp_path: Path) -> None:
    save(tmp_path / "a")
    loaded = load_checkpoint(tmp_path / "a")
    save_checkpoint(tmp_path / "b", loaded.architecture, loaded.network, loaded.notes)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_loaded_network_does_not_hang_on_its_file(tmp_path: Path) -> None:
    path = tmp_path / "n"
    save(path)
    loaded = load_checkpoint(path).network
    before = [value.clone() for value in loaded.state_dict().values()]
    path.write_bytes(b"\0" * path.stat().st_size)
    after = list(loaded.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    save(tmp_path / "n")
    with safe_open(tmp_path / "n", framework="np") as file:
        header = json.loads(file.metadata()["tinygrow"])
        names = set(file.keys())
    assert header["format"] == FORMAT
    assert Architecture.from_dict(header["architecture"]) == RESNET
    assert names == set(trained(RESNET).state_dict())


class TestRefusals:
    def refused(self, path: Path, words: str) -> None:
        with pytest.raises(TinygrowError, match=words) as caught:
            load_checkpoint(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "none", "does not exist; run the stage")
        self.refused(tmp_path, "does not exist")

    @pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.6, 0.999])
    def test_truncated(self, share: float, tmp_path: Path) -> None:
        path = tmp_path / "n"
        save(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        self.refused(path, "is damaged .*run its stage again")

    @pytest.mark.parametrize("content", [b"hello", b"\xff" * 100, b"\0" * 100])
    def test_not_safetensors(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "n"
        path.write_bytes(content)
        self.refused(path, "is damaged")

    def test_a_pickle_is_refused_and_not_run(self, tmp_path: Path) -> None:
        trap = tmp_path / "trap"
        (tmp_path / "pickle").write_bytes(pickle.dumps(Trap(trap)))
        torch.save({"trap": Trap(trap)}, tmp_path / "torch")
        for name in ("pickle", "torch"):
            self.refused(tmp_path / name, "is damaged")
        assert not trap.exists()
        pickle.loads((tmp_path / "pickle").read_bytes())
        assert trap.exists(), "the trap works"

    @pytest.mark.parametrize(
        ("metadata", "words"),
        [
            (None, "has format None"),
            ({"other": "x"}, "has format None"),
            ({"tinygrow": '{"format": "tinygrow-checkpoint-0"}'}, "tinygrow-checkpoint-0"),
            ({"tinygrow": "[]"}, "has format None"),
            ({"tinygrow": "{not json"}, "is damaged"),
            ({"tinygrow": json.dumps({"format": FORMAT})}, "header is damaged .*architecture"),
            (
                {"tinygrow": json.dumps({"format": FORMAT, "architecture": {}, "notes": {}})},
                "header is damaged .*not an architecture",
            ),
        ],
    )
    def test_foreign_safetensors(
        self, metadata: dict[str, str] | None, words: str, tmp_path: Path
    ) -> None:
        save_file({"x": torch.zeros(3)}, tmp_path / "n", metadata=metadata)
        self.refused(tmp_path / "n", words)

    @pytest.mark.parametrize("bit", [0, 4])
    def test_a_changed_bit_of_the_header_is_refused_or_read(self, bit: int, tmp_path: Path) -> None:
        """Some bits only change a note; none may end in anything but an expected failure."""
        path = tmp_path / "n"
        save(path)
        content = path.read_bytes()
        refused = 0
        for place in range(0, 8 + int.from_bytes(content[:8], "little"), 9):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            try:
                load_checkpoint(path)
            except TinygrowError:
                refused += 1
        assert refused > 200

    @pytest.mark.parametrize(
        "change",
        [
            lambda tensors: tensors.pop("head.bias"),
            lambda tensors: tensors.update({"more": torch.zeros(1)}),
            lambda tensors: tensors.update({"head.bias": torch.zeros(7)}),
        ],
    )
    def test_weights_that_do_not_fit(self, change: Any, tmp_path: Path) -> None:
        tensors = dict(trained(MLP).state_dict())
        change(tensors)
        header = {"format": FORMAT, "architecture": MLP.to_dict(), "notes": {}}
        save_file(tensors, tmp_path / "n", metadata={"tinygrow": json.dumps(header)})
        self.refused(tmp_path / "n", "weights do not fit its architecture")


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "n"
    save(path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(TinygrowError, match=r"cannot write .*free disk space"):
            save(path, seed=9)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_notes_that_are_not_plain_data_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "n", MLP, trained(MLP), {"x": torch.zeros(1)})
    assert not list(tmp_path.iterdir())


class Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("other", (1, 6, 6), 3), ("digits", (3, 6, 6), 3), ("digits", (1, 6, 6), 4)],
)
def test_a_checkpoint_of_other_images_is_refused(
    tmp_path: Path, name: str, shape: tuple[int, int, int], classes: int
) -> None:
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, MLP, build_network(MLP, 0), {"data": "digits"})
    channels = shape[0]

    def card(name: str, shape: tuple[int, int, int], classes: int) -> DataCard:
        return DataCard(
            name=name,
            source="",
            classes=tuple("abcd"[:classes]),
            shape=shape,
            mean=(0.5,) * channels,
            std=(0.5,) * channels,
            counts={},
        )

    require_fit(load_checkpoint(path), card("digits", (1, 6, 6), 3), path)
    with pytest.raises(TinygrowError, match="was made for the data set digits"):
        require_fit(load_checkpoint(path), card(name, shape, classes), path)
