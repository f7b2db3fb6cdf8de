"""BatchNorm taken out of a network, once, in float64, before anything is exported.

It is folded into the layer before it; where none feeds it alone, as in networks that normalise
before they convolve, a multiplication and an addition take its place.
"""

import copy

import torch
from torch import fx, nn

from tinygrow.errors import TinygrowError
from tinygrow.networks.norms import activations_of
from tinygrow.networks.tracing import BatchNorm, first_line, trace

Layer = nn.Conv2d | nn.Linear


class ScaleAndShift(nn.Module):
    """What is left of a BatchNorm in evaluation: y = weight x + bias, channel by channel.

    Args:
        weight: of any shape that broadcasts against the input.
        bias: likewise.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, ...) to the same shape."""
        return x * self.weight + self.bias


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode, on the CPU, that computes the same without BatchNorm.

    With the running mean and variance mu and v, y = gamma (W x + b - mu) / sqrt(v + eps) + beta is
    W' x + b' with W' = g W and b' = g (b - mu) + beta, where g = gamma / sqrt(v + eps). Module
    paths stay what they are, so the state dict keeps its names.

    Args:
        network: any module; one with BatchNorm must be one that `torch.fx` traces.

    Raises:
        TinygrowError: it is not, or a BatchNorm keeps no running statistics or does more than
            PyTorch's and element-wise activations.
    """
    folded = copy.deepcopy(network).cpu().float().eval()
    for path, layer_path in _pairs(folded).items():
        norm = folded.get_submodule(path)
        assert isinstance(norm, BatchNorm)
        gain, shift, inside = _affine(norm, path)
        modules = list(inside)
        if layer_path is None:
            broadcast = (-1, *[1] * (2 if isinstance(norm, nn.BatchNorm2d) else 0))
            gain, shift = gain.reshape(broadcast), shift.reshape(broadcast)
            modules.insert(0, ScaleAndShift(gain.float(), shift.float()))
        else:
            layer = folded.get_submodule(layer_path)
            assert isinstance(layer, Layer)
            _fold_into(layer, gain, shift)
        _replace(folded, path, _joined(modules))
    return folded.eval().requires_grad_(False)


def _pairs(network: nn.Module) -> dict[str, str | None]:
    """Return, for the path of each BatchNorm, that of the layer it can be folded into, or None."""
    norms = {path for path, module in network.named_modules() if isinstance(module, BatchNorm)}
    if not norms:
        return {}
    try:
        traced = trace(network)
    # The network's own code runs on stand-ins for tensors, and can raise anything.
    except Exception as error:
        raise TinygrowError(
            "BatchNorm cannot be folded in a network that torch.fx cannot trace"
            f" ({first_line(error)})"
        ) from error
    calls = [node for node in traced.graph.nodes if node.op == "call_module"]
    targets = [node.target for node in calls]
    pairs: dict[str, str | None] = dict.fromkeys(sorted(norms))
    for node in calls:
        before = node.args[0] if node.args else None
        if (
            node.target in norms
            and isinstance(before, fx.Node)
            and before.op == "call_module"
            and isinstance(network.get_submodule(str(before.target)), Layer)
            and len(before.users) == 1
            and targets.count(before.target) == targets.count(node.target) == 1
        ):
            pairs[str(node.target)] = str(before.target)
    return pairs


def _affine(norm: BatchNorm, path: str) -> tuple[torch.Tensor, torch.Tensor, tuple[nn.Module, ...]]:
    """Return gain and shift (C,) in float64, and the activations inside of the norm."""
    if norm.running_mean is None or norm.running_var is None:
        raise TinygrowError(
            f"BatchNorm {path!r} keeps no running statistics; build it with track_running_stats"
        )
    inside = activations_of(norm)
    if inside is None:
        raise TinygrowError(
            f"{path!r} is a {type(norm).__name__}, which does more than normalise; BatchNorm1d and"
            " BatchNorm2d can be exported"
        )
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    gamma = torch.ones_like(mean) if norm.weight is None else norm.weight.double()
    beta = torch.zeros_like(mean) if norm.bias is None else norm.bias.double()
    gain = gamma / torch.sqrt(variance + norm.eps)
    return gain, beta - gain * mean, inside


def _fold_into(layer: Layer, gain: torch.Tensor, shift: torch.Tensor) -> None:
    weight = layer.weight.double() * gain.reshape(-1, *[1] * (layer.weight.ndim - 1))
    bias = shift if layer.bias is None else gain * layer.bias.double() + shift
    layer.weight = nn.Parameter(weight.float())
    layer.bias = nn.Parameter(bias.float())


def _joined(modules: list[nn.Module]) -> nn.Module:
    """Return one module that runs them in turn."""
    if len(modules) == 1:
        return modules[0]
    return nn.Sequential(*modules) if modules else nn.Identity()


def _replace(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)
