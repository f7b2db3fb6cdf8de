import io

import pytest
import torch
from torch import nn

from tinygrow.state.values import copied, load_weights

SHAPES = [(8, 4, 3, 3), (8, 1, 3, 3), (1, 4, 3, 3), (8, 4, 1, 1), (1, 1, 1, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_values_and_strides_survive_a_file(
    shape: tuple[int, ...], layout: torch.memory_format
) -> None:
    tensor = torch.randn(shape).contiguous(memory_format=layout)
    file = io.BytesIO()
    torch.save(copied({"a": [tensor, (1, "b", None)]}), file)
    file.seek(0)
    back = torch.load(file, weights_only=True)
    assert torch.equal(back["a"][0], tensor)
    assert back["a"][0].stride() == tensor.stride()
    assert back["a"][1] == (1, "b", None)


def test_a_copy_does_not_follow_its_original() -> None:
    tensor = torch.zeros(3, requires_grad=True)
    value = {"a": [tensor]}
    copy = copied(value)
    with torch.no_grad():
        tensor += 1
    value["a"].append(tensor)
    assert torch.equal(copy["a"][0], torch.zeros(3))
    assert len(copy["a"]) == 1
    assert not copy["a"][0].requires_grad


def test_a_view_is_copied_without_what_it_is_a_view_of() -> None:
    part = torch.arange(1000)[:3]
    assert copied(part).untyped_storage().nbytes() == 3 * 8


def test_loaded_weights_have_the_saved_strides_and_can_be_trained() -> None:
    network = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8))
    saved = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)).to(
        memory_format=torch.channels_last
    )
    state = copied(dict(saved.state_dict()))
    load_weights(network, state)
    assert network[0].weight.stride() == saved[0].weight.stride()
    assert isinstance(network[0].weight, nn.Parameter) and network[0].weight.requires_grad
    with torch.no_grad():
        network[0].weight += 1  # a state that was loaded stays as it was
    assert torch.equal(state["0.weight"], saved[0].weight)
