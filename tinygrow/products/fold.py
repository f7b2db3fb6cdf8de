"""BatchNorm folded into the layer before it, once, in float64, before anything is exported."""

import copy

import torch
from torch import fx, nn

from tinygrow.errors import TinygrowError

Norm = nn.BatchNorm1d | nn.BatchNorm2d
Layer = nn.Conv2d | nn.Linear


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode, on the CPU, that computes the same without BatchNorm.

    With the running mean and variance mu and v, y = gamma (W x + b - mu) / sqrt(v + eps) + beta is
    W' x + b' with W' = g W and b' = g (b - mu) + beta, where g = gamma / sqrt(v + eps). Module
    paths stay what they are, so the state dict keeps its names.

    Args:
        network: any module that `torch.fx` traces, each BatchNorm fed by a convolution or linear
            layer that feeds nothing else.

    Raises:
        TinygrowError: a BatchNorm stands elsewhere, or keeps no running statistics.
    """
    folded = copy.deepcopy(network).cpu().float().eval()
    for path, layer_path in _pairs(folded).items():
        norm, layer = folded.get_submodule(path), folded.get_submodule(layer_path)
        assert isinstance(norm, Norm) and isinstance(layer, Layer)
        _fold_into(layer, norm, path)
        _replace(folded, path, nn.Identity())
    return folded.eval().requires_grad_(False)


def _pairs(network: nn.Module) -> dict[str, str]:
    """Return, for the path of each BatchNorm, the path of the layer it can be folded into."""
    norms = {path for path, module in network.named_modules() if isinstance(module, Norm)}
    if not norms:
        return {}
    calls = [node for node in fx.Tracer().trace(network).nodes if node.op == "call_module"]
    targets = [node.target for node in calls]
    pairs: dict[str, str] = {}
    for node in calls:
        if node.target not in norms:
            continue
        before = node.args[0]
        if not (
            isinstance(before, fx.Node)
            and before.op == "call_module"
            and isinstance(network.get_submodule(str(before.target)), Layer)
            and len(before.users) == 1
            and targets.count(before.target) == targets.count(node.target) == 1
        ):
            raise TinygrowError(
                f"BatchNorm {node.target!r} cannot be folded: it must follow a convolution or"
                " linear layer whose output nothing else reads"
            )
        pairs[str(node.target)] = str(before.target)
    return pairs


def _fold_into(layer: Layer, norm: Norm, path: str) -> None:
    if norm.running_mean is None or norm.running_var is None:
        raise TinygrowError(
            f"BatchNorm {path!r} keeps no running statistics; build it with track_running_stats"
        )
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    gamma = torch.ones_like(mean) if norm.weight is None else norm.weight.double()
    beta = torch.zeros_like(mean) if norm.bias is None else norm.bias.double()
    bias = torch.zeros_like(mean) if layer.bias is None else layer.bias.double()
    gain = gamma / torch.sqrt(variance + norm.eps)
    weight = layer.weight.double() * gain.reshape(-1, *[1] * (layer.weight.ndim - 1))
    layer.weight = nn.Parameter(weight.float())
    layer.bias = nn.Parameter((gain * (bias - mean) + beta).float())


def _replace(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)
