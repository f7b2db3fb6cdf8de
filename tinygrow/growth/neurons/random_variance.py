"""Random neurons for which the old ones make room, so that the output's variance is kept.

As in variance transfer (Yuan, Savarese, Maire 2023; tiny.md section 4), the existing fan-out is
multiplied by a = sqrt(old width / new width). New fan-in and fan-out are random, the fan-out times
the b that gives the output of the second layer the variance which it had: measured, as trained
weights do not add up like random ones. The function changes, all the more the more is added.
"""

import math
import time
from collections.abc import Sequence

import torch

from tinygrow.growth.amplitude import Trial
from tinygrow.growth.neurons.initial import fan_in_like, fan_out_like, zero_bias
from tinygrow.growth.neurons.proposal import Proposal, Request
from tinygrow.growth.statistics import apply_layer, batch_statistics, rows_of
from tinygrow.growth.surgery import NewUnits, as_neurons
from tinygrow.training.batches import Batch
from tinygrow.training.device import full_float32


def propose(request: Request) -> Proposal:
    """Draw both as large as the layers' own, and scale the fan-out by variances on a sample."""
    first, second = request.site.layers(request.network)
    old, count = first.weight.shape[0], request.count
    drawn = NewUnits(
        fan_in=fan_in_like(first, count, request.generator),
        bias=zero_bias(first, count),
        fan_out=fan_out_like(first, second, count, request.generator),
    )
    started = time.perf_counter()
    sample = request.sample(request.settings.statistics.min_images)
    variance, new, cross = contributions(request, drawn, sample)
    kept = math.sqrt(old / (old + count))
    scale = fan_out_scale(kept, variance, new, cross)
    units = NewUnits(
        drawn.fan_in,
        drawn.bias,
        drawn.fan_out * scale,
        rescale=second.weight.new_full((old,), kept if scale else 1.0),
    )
    return Proposal(
        neurons=as_neurons(units),
        settled=units,
        images=sum(len(labels) for _, labels in sample),
        seconds_statistics=time.perf_counter() - started,
    )


def fan_out_scale(kept: float, variance: float, new: float, cross: float) -> float:
    """Return b >= 0 for which the variance of a * old + b * new is that of the old alone.

    Args:
        kept: a, below 1.
        variance: of the old outputs.
        new: variance of the new.
        cross: covariance of both.

    Returns:
        b; 0 where the new outputs do not vary.
    """
    if not new > 0.0:
        return 0.0
    half = kept * cross
    return (math.sqrt(half**2 + new * (1.0 - kept**2) * variance) - half) / new


@torch.no_grad()
def contributions(
    request: Request, units: NewUnits, sample: Sequence[Batch]
) -> tuple[float, float, float]:
    """Return variance of the old units' outputs, of the new ones', and the covariance of both.

    The outputs are those of the second layer; variances are about each channel's mean over images
    and positions, and summed over channels.
    """
    trial = Trial(request.network, request.site, units)
    second = request.site.layers(trial.network)[1]
    old = request.site.layers(request.network)[1].weight.shape[1]
    kept: dict[str, torch.Tensor] = {}

    def keep_input(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        kept["h"] = inputs[0]

    handle = second.register_forward_pre_hook(keep_input)
    sums, means, count = torch.zeros(3), torch.zeros(0), 0
    try:
        with batch_statistics(trial.network), full_float32():
            for images, _ in sample:
                trial.network(images)
                h = rows_of(second, kept["h"])
                parts = [(h[:, :old], second.weight[:, :old]), (h[:, old:], second.weight[:, old:])]
                both = torch.stack(
                    [
                        apply_layer(second, x, w, None).double().transpose(0, 1).flatten(1)
                        for x, w in parts
                    ]
                )  # (2, outputs, images and positions)
                products = torch.einsum("aqn,bqn->ab", both, both)
                if not count:
                    sums, means = torch.zeros_like(products), torch.zeros_like(both[:, :, 0])
                sums, means = sums + products, means + both.sum(2)
                count += both.shape[2]
    finally:
        handle.remove()
    covariance = (sums - means @ means.T / count) / count
    return float(covariance[0, 0]), float(covariance[1, 1]), float(covariance[0, 1])
