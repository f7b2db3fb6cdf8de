"""Between proposal and amplitude: fan-out weights from what new neurons really compute.

Candidates are widened into a copy of the network, without fan-out, so that normalisation and
activation are the network's own and the desired update is that of the network as it stands.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from tinygrow.distributed import share, total
from tinygrow.growth.amplitude import normalized
from tinygrow.growth.moments import CrossSum, GramSum
from tinygrow.growth.neurons.proposal import Proposal, Request
from tinygrow.growth.patches import Layer, taps
from tinygrow.growth.refit import RefitMoments, centred, choose_and_fit, fit_scales
from tinygrow.growth.sample_size import update_sample_size
from tinygrow.growth.significance import gain_scores
from tinygrow.growth.signs import both_signs, neuron_signs
from tinygrow.growth.sites import Site
from tinygrow.growth.statistics import batch_statistics, desired_update
from tinygrow.growth.surgery import NewUnits, as_units, widen
from tinygrow.settings.growth import AmplitudeSettings, StatisticsSettings
from tinygrow.training.batches import Batch
from tinygrow.training.device import full_float32


def refined(request: Request, proposal: Proposal) -> tuple[NewUnits, AmplitudeSettings]:
    """Return the units to be added, but for their amplitude, and how that is to be searched.

    The fit reads the images of the best update: those that gave the directions would flatter them.

    Args:
        request: how many neurons are wanted, and where; the proposal may hold more.
        proposal: at least one neuron.
    """
    network, site, settings = request.network, request.site, request.settings
    refinement, smoothing = settings.refinement, settings.training.label_smoothing
    first, second = site.layers(network)
    units = as_units(proposal.neurons, first, second)
    if refinement.fan_out == "closed_form":
        return units, settings.amplitude
    batches = proposal.update_batches
    if not batches:
        hidden = _hidden_size(network, site, request.sample(2)[0])
        batches = request.sample(
            update_sample_size(second, hidden, request.available, settings.statistics)
        )
    units = normalized(network, site, units, batches[:1], settings.amplitude)
    damping = refinement.damping if refinement.metric == "fisher" else None
    weights = taps(first, second)
    if refinement.fan_out == "scale":
        units = units.signed(neuron_signs(network, site, units, batches[0], smoothing))
        moments = refit_moments(network, site, units, batches, settings.statistics, smoothing)
        omega = units.fan_out.reshape(*units.fan_out.shape[:2], weights).permute(1, 2, 0)
        factors = fit_scales(moments, omega, refinement.ridge, damping).to(units.fan_out)
        shape = (1, -1, *[1] * (units.fan_out.ndim - 2))
        units = replace(units, fan_out=units.fan_out * factors.reshape(shape))
    else:
        units = both_signs(units)
        moments = refit_moments(network, site, units, batches, settings.statistics, smoothing)
        fit = choose_and_fit(moments, weights, request.count, refinement.ridge, damping)
        units = _taken(units, fit.chosen, fit.fan_out)
        if refinement.significance:
            fresh = request.sample(settings.statistics.min_images)
            scores = gain_scores(network, site, units, fresh, smoothing)
            kept = (scores >= refinement.significance).nonzero()[:, 0]
            units = _taken(units, kept, fit.fan_out[kept])
    # The sign is the fit's; another one would be that of other neurons.
    return units, replace(settings.amplitude, sign="none")


def refit_moments(
    network: nn.Module,
    site: Site,
    candidates: NewUnits,
    batches: Sequence[Batch],
    settings: StatisticsSettings,
    label_smoothing: float = 0.0,
) -> RefitMoments:
    """Measure what candidates can do for the desired update (tiny.md 1.3, of new channels alone).

    Args:
        network: as it stands; not changed.
        site: where.
        candidates: with the fan-in that they will have; their fan-out does not matter.
        batches: images of the estimate.
        settings: precision and chunks.
        label_smoothing: that of the training loss.
    """
    trial = copy.deepcopy(network)
    widen(trial, site, candidates.scaled(1.0, 0.0))
    (first, second), dtype = site.layers(trial), getattr(torch, settings.dtype)
    flattened = isinstance(first, nn.Conv2d) and isinstance(second, nn.Linear)
    features = len(candidates) * (taps(first, second) if flattened else 1)
    reader = _reader(second, features)
    bound = settings.chunk_megabytes * 2**20 // dtype.itemsize
    gram, cross = GramSum(reader, bound), CrossSum(reader, bound)
    fisher = torch.zeros(1, dtype=torch.float64, device=second.weight.device)
    images = 0
    with batch_statistics(trial), full_float32():
        for batch in share(batches):
            _, h, target = desired_update(trial, site, batch, label_smoothing)
            h, target = h[:, -features:].to(dtype), target.to(dtype)
            gram.add(h)
            cross.add(h, target)
            outputs = target.transpose(0, 1).flatten(1)
            fisher = fisher + (outputs @ outputs.T).double()
            images += len(batch[1])
    images, (squares, products, fisher) = total(
        images, lambda: [gram.result(), cross.result(), fisher]
    )
    squares, products = squares / images, products / images
    if second.bias is not None:
        squares, products = centred(squares, products)
    return RefitMoments(squares, products, fisher / images)


def _reader(second: Layer, channels: int) -> Layer:
    """Return a layer without weights that reads the new channels as `second` does."""
    bias = second.bias is not None
    if isinstance(second, nn.Linear):
        return nn.Linear(channels, 1, bias=bias, device="meta")
    return nn.Conv2d(
        channels,
        1,
        second.kernel_size,  # type: ignore[arg-type]
        second.stride,  # type: ignore[arg-type]
        second.padding,  # type: ignore[arg-type]
        second.dilation,  # type: ignore[arg-type]
        bias=bias,
        device="meta",
    )


def _taken(units: NewUnits, chosen: torch.Tensor, fan_out: torch.Tensor) -> NewUnits:
    """Return the chosen units with a new fan-out (K, T, q)."""

    def of(values: torch.Tensor | None) -> torch.Tensor | None:
        return None if values is None else values[chosen]

    outputs = fan_out.shape[2]
    weight = fan_out.permute(2, 0, 1).reshape(outputs, len(chosen), *units.fan_out.shape[2:])
    return replace(
        units,
        fan_in=units.fan_in[chosen],
        bias=of(units.bias),
        fan_out=weight.to(units.fan_out).contiguous(),
        norm_weight=of(units.norm_weight),
        norm_bias=of(units.norm_bias),
    )


def _hidden_size(network: nn.Module, site: Site, batch: Batch) -> tuple[int, ...]:
    with batch_statistics(network):
        _, h, _ = desired_update(network, site, batch)
    return tuple(h.shape[2:])
