"""The rest of a residual network from one block on, for its own features as images.

What comes before the block is the same for all ways to widen it, so that it is computed once. With
the statistics of each mini-batch nothing changes, as long as mini-batches stay the same.
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn

from tinygrow.growth.sites import Site
from tinygrow.growth.statistics import batch_statistics
from tinygrow.networks.resnet import ResNet
from tinygrow.training.batches import Batch


def tail_of(network: nn.Module, site: Site) -> nn.Module:
    """Return a copy whose parts before the site's block do nothing; names stay."""
    tail = copy.deepcopy(network)
    assert isinstance(tail, ResNet)
    block = site.first.rpartition(".")[0]
    for path in _parts(tail):
        if path == block:
            return tail
        parent, _, name = path.rpartition(".")
        setattr(tail.get_submodule(parent), name, nn.Identity())
    raise ValueError(f"{block} is no block of the network")


def features(
    network: nn.Module, site: Site, batches: Sequence[Batch], training: bool = True
) -> list[Batch]:
    """Return what the site's block reads, with the labels.

    Args:
        network: whole.
        site: where.
        batches: images.
        training: with the statistics of each mini-batch; else with running ones.
    """
    kept: list[torch.Tensor] = []
    block = network.get_submodule(site.first.rpartition(".")[0])
    handle = block.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0]))
    try:
        with torch.no_grad():
            for x, _ in batches:
                if training:
                    with batch_statistics(network):
                        network(x)
                else:
                    network.eval()(x)
    finally:
        handle.remove()
    return [(x, y) for x, (_, y) in zip(kept, batches, strict=True)]


def _parts(network: ResNet) -> list[str]:
    """Return the paths of stem, transitions and blocks in order."""
    paths = ["stem"]
    for i, stage in enumerate(network.stages):
        paths += [f"stages.{i}.{name}" for name, _ in stage.named_children()]
    return paths
