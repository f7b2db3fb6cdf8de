"""The RS loss: pushes the bounds of each pre-activation to the same side of zero.

Xiao, Tjeng, Shafiullah, Madry, *Training for Faster Adversarial Robustness Verification via
Inducing ReLU Stability*, ICLR 2019: the mean of -tanh(1 + l u) over all pre-activations with bounds
l and u, here those of interval arithmetic over all images of the domain. Where l u is very negative
the tanh is flat: deep networks whose bounds are wide get no gradient until something else, such as
proximal l1, has narrowed them.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from tinygrow.errors import TinygrowError
from tinygrow.networks.tracing import BatchNorm, first_line, trace

Interval = tuple[torch.Tensor, torch.Tensor]


class RSLoss:
    """The loss of one network; differentiable in its parameters.

    BatchNorm counts with its running statistics, as it does when training is over.

    Args:
        network: that is trained.
        lower: smallest normalised image, (C, H, W).
        upper: largest.

    Raises:
        TinygrowError: the network does something of which no bounds are known here.
    """

    def __init__(self, network: nn.Module, lower: torch.Tensor, upper: torch.Tensor) -> None:
        was = network.training
        try:
            graph = trace(network.eval()).graph
        # The network's own code runs on stand-ins for tensors, and can raise anything.
        except Exception as error:
            raise TinygrowError(
                f"rs_loss needs a network that torch.fx can trace ({first_line(error)}); set"
                " stability.rs_loss to 0"
            ) from error
        finally:
            network.train(was)
        self.network, self.graph = network, graph
        self.box: Interval = (lower[None], upper[None])

    def __call__(self) -> torch.Tensor:
        """Return the loss, between -1 and 1; 0 for a network without ReLUs."""
        values: dict[fx.Node, Any] = {}
        losses: list[torch.Tensor] = []
        for node in self.graph.nodes:
            if node.op == "placeholder":
                values[node] = self.box
            elif node.op == "output":
                break
            else:
                read = [values[n] for n in node.all_input_nodes]
                if _name(node, self.network) == "relu":
                    lower, upper = read[0]
                    losses.append(-torch.tanh(1 + lower * upper).mean())
                values[node] = _bounds(node, self.network, read)
        if not losses:
            return torch.zeros((), device=self.box[0].device)
        return torch.stack(losses).mean()


def _name(node: fx.Node, network: nn.Module) -> str:
    if node.op == "call_module":
        return type(network.get_submodule(str(node.target))).__name__.lower()
    return str(getattr(node.target, "__name__", node.target)).rstrip("_")


def _bounds(node: fx.Node, network: nn.Module, read: list[Interval]) -> Interval:
    name = _name(node, network)
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        if isinstance(module, nn.Conv2d | nn.Linear):
            return _affine(module, *read[0])
        if isinstance(module, BatchNorm):
            return _norm(module, *read[0])
        if isinstance(module, nn.AvgPool2d | nn.AdaptiveAvgPool2d | nn.MaxPool2d | nn.Flatten):
            return module(read[0][0]), module(read[0][1])
        if isinstance(module, nn.ReLU | nn.Identity | nn.Dropout):
            relu = isinstance(module, nn.ReLU)
            return (F.relu(read[0][0]), F.relu(read[0][1])) if relu else read[0]
    elif name == "relu":
        return F.relu(read[0][0]), F.relu(read[0][1])
    elif name in ("add", "iadd") and len(read) == 2:
        return read[0][0] + read[1][0], read[0][1] + read[1][1]
    elif name in ("flatten", "adaptive_avg_pool2d", "avg_pool2d") and len(read) == 1:
        return _called(node, read[0][0]), _called(node, read[0][1])
    raise TinygrowError(
        f"rs_loss knows no bounds of {name!r} ({node.name}); set stability.rs_loss to 0"
    )


def _called(node: fx.Node, value: torch.Tensor) -> torch.Tensor:
    if node.op == "call_method":
        result = getattr(value, str(node.target))(*node.args[1:], **node.kwargs)
    else:
        assert callable(node.target)
        result = node.target(value, *node.args[1:], **node.kwargs)
    assert isinstance(result, torch.Tensor)
    return result


def _affine(layer: nn.Conv2d | nn.Linear, lower: torch.Tensor, upper: torch.Tensor) -> Interval:
    centre, radius = (upper + lower) / 2, (upper - lower) / 2
    middle = layer(centre)
    size = layer.weight.abs()
    if isinstance(layer, nn.Linear):
        reach = F.linear(radius, size)
    else:
        reach = layer._conv_forward(radius, size, None)
    return middle - reach, middle + reach


def _norm(norm: Any, lower: torch.Tensor, upper: torch.Tensor) -> Interval:
    gain = torch.rsqrt(norm.running_var + norm.eps)
    if norm.affine:
        gain = gain * norm.weight
    shift = -norm.running_mean * gain
    if norm.affine:
        shift = shift + norm.bias
    shape = (1, -1, *[1] * (lower.ndim - 2))
    ends = lower * gain.reshape(shape), upper * gain.reshape(shape)
    shift = shift.reshape(shape)
    return torch.minimum(*ends) + shift, torch.maximum(*ends) + shift
