"""BatchNorm, and modules that are a BatchNorm with activations behind it."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from tinygrow.growth.operations import is_elementwise
from tinygrow.networks.tracing import BatchNorm


def activations_of(norm: BatchNorm) -> tuple[nn.Module, ...] | None:
    """Return the element-wise modules that run inside of a norm, behind its affine map.

    PyTorch's own have none; timm's carry their dropout and activation. A class with a forward pass
    of its own is compared with what it seems to compute on random numbers.

    Args:
        norm: with or without affine map and running statistics.

    Returns:
        None where the module computes something else.
    """
    plain = (nn.modules.batchnorm._BatchNorm, nn.SyncBatchNorm)
    if any(type(norm).forward is kind.forward for kind in plain):
        return ()
    inside = tuple(norm.children())
    if norm.running_mean is None or not all(is_elementwise(module) for module in inside):
        return None
    norm = copy.deepcopy(norm).cpu().eval()
    generator = torch.Generator().manual_seed(0)
    shape = (4, norm.num_features, *((3, 3) if isinstance(norm, nn.BatchNorm2d) else ()))
    x = 2.0 * torch.randn(shape, generator=generator)
    x = x.to(norm.running_mean)
    with torch.no_grad():
        right = F.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )
        for module in norm.children():
            right = module(right.clone())
        return inside if torch.allclose(norm(x), right, rtol=1e-4, atol=1e-5) else None
