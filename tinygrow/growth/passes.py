"""Further passes over new neurons: fan-in and fan-out moved together, on the loss itself.

The closed form and the refit both take the loss for linear in the output of the second layer. Where
the neurons already stand at their amplitude, one more gradient of the loss with respect to their
weights, preconditioned as Gauss-Newton's method with Kronecker factors does, moves all of them at
once. How far is tried on images that did not give the direction, and only what gains there is kept.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from tinygrow.growth.amplitude import Trial
from tinygrow.growth.moments import GramSum
from tinygrow.growth.refit import inverse_fisher
from tinygrow.growth.sites import Site
from tinygrow.growth.statistics import batch_statistics, rows_of
from tinygrow.growth.surgery import NewUnits, widen
from tinygrow.settings.growth import RefinementSettings
from tinygrow.training.batches import Batch
from tinygrow.training.device import full_float32

STEPS = (0.125, 0.25, 0.5, 1.0)
"""Sizes tried: of the change of pre-activations and of the fan-out, relative to themselves."""
_BOUND = 2**26  # numbers of unfolded patches held at once


@dataclass(frozen=True, slots=True)
class Passed:
    """What the passes came to.

    Attributes:
        units: as they are to be added.
        loss: mean loss with them on the images of the search; None where no pass gained.
    """

    units: NewUnits
    loss: float | None


def refine_further(
    network: nn.Module,
    site: Site,
    units: NewUnits,
    estimate: Sequence[Batch],
    search: Sequence[Batch],
    settings: RefinementSettings,
    label_smoothing: float = 0.0,
) -> Passed:
    """Make up to `settings.passes` passes; the first that gains nothing is the last.

    Args:
        network: before the extension; not changed.
        site: where.
        units: at their amplitude.
        estimate: images that give the directions.
        search: images that choose the sizes.
        settings: passes, ridge and damping.
        label_smoothing: that of the training loss.
    """
    lowest: float | None = None
    trial = Trial(network, site, units)
    best = start = trial.loss(search, label_smoothing)
    for _ in range(settings.passes):
        change_in, change_bias, change_out = direction(
            network, site, units, estimate, settings, label_smoothing
        )
        found = units
        for step in STEPS:
            bias = None if units.bias is None else units.bias + step * change_bias
            trial.units = replace(
                units,
                fan_in=units.fan_in + step * change_in,
                bias=bias,
                fan_out=units.fan_out + step * change_out,
            )
            trial.set(1.0, 1.0)
            loss = trial.loss(search, label_smoothing)
            if not loss < best:  # nor is what is not a number
                break
            best, found = loss, trial.units
        if found is units:
            break
        units, lowest = found, best
    return Passed(units, lowest if best < start else None)


def direction(
    network: nn.Module,
    site: Site,
    units: NewUnits,
    batches: Sequence[Batch],
    settings: RefinementSettings,
    label_smoothing: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor | float, torch.Tensor]:
    """Return the change of fan-in, bias (0.0 where there is none) and fan-out.

    Each is -(output factor)^(-1) gradient (input factor)^(-1), the factors second moments of what
    the layer reads and of the gradient of its new outputs; scaled so that the pre-activations of
    the new units, and their fan-out, would change by their own size.
    """
    trial = copy.deepcopy(network)
    widen(trial, site, units)
    first, second = site.layers(trial)
    count = len(units)
    inputs, hidden = GramSum(first, _BOUND), GramSum(second, _BOUND)
    sums: list[torch.Tensor] = []
    kept: dict[str, torch.Tensor] = {}
    edges: dict[str, GradientEdge] = {}

    def keep(name: str) -> object:
        def hook(_: nn.Module, read: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            # Of the output its place in the graph, as an activation in place overwrites it.
            kept[name], edges[name] = read[0], get_gradient_edge(output)

        return hook

    handles = [
        first.register_forward_hook(keep("first")),  # type: ignore[arg-type]
        second.register_forward_hook(keep("second")),  # type: ignore[arg-type]
    ]
    wanted = [first.weight, second.weight] + ([] if first.bias is None else [first.bias])
    leaves = [get_gradient_edge(parameter) for parameter in wanted]
    images = 0
    try:
        with batch_statistics(trial), full_float32(), torch.enable_grad():
            for x, y in batches:
                logits = trial(x)
                loss = F.cross_entropy(logits, y, reduction="sum", label_smoothing=label_smoothing)
                slopes = torch.autograd.grad(loss, [edges["first"], edges["second"], *leaves])
                parts = [
                    _square(rows_of(first, slopes[0])[:, -count:]),
                    _square(rows_of(second, slopes[1])),
                ]
                parts += [s.double() for s in slopes[2:]]
                sums = parts if not sums else [a + b for a, b in zip(sums, parts, strict=True)]
                inputs.add(rows_of(first, kept["first"].detach()))
                hidden.add(rows_of(second, kept["second"].detach()))
                images += len(y)
    finally:
        for handle in handles:
            handle.remove()
    power_in, power_out, slope_in, slope_out = (s / images for s in sums[:4])
    gram, columns = inputs.result().double() / images, units.columns.shape[1]
    weights = units.fan_out[0].numel()  # of an output of `second` on the new units: K * T
    rows = slope_in[-count:].flatten(1)
    if first.bias is not None:
        rows = torch.cat([rows, (sums[4] / images)[-count:, None]], 1)
    change = (
        -inverse_fisher(power_in, settings.damping)
        @ torch.linalg.solve(_ridged(gram, settings.ridge), rows.T).T
    )
    own = units.fan_in.double().flatten(1)
    own = own if units.bias is None else torch.cat([own, units.bias.double()[:, None]], 1)
    if units.bias is not None:  # a norm takes the mean off, so that sizes are those of the rest
        gram = gram - torch.outer(gram[-1], gram[-1]) / gram[-1, -1]
    change = change * (_size(own, gram) / _size(change, gram)).nan_to_num(0.0, 0.0, 0.0)
    new = slice(-weights - (second.bias is not None), None)
    reads = hidden.result().double()[new, new] / images
    if second.bias is not None:
        reads = reads[:-1, :-1] - torch.outer(reads[-1, :-1], reads[-1, :-1]) / reads[-1, -1]
    out = slope_out[:, -columns:].flatten(1).T  # (K * T, q)
    out = -torch.linalg.solve(_ridged(reads, settings.ridge), out)
    out = (out @ inverse_fisher(power_out, settings.damping)).T.reshape(units.fan_out.shape)
    out = out * (units.fan_out.double().norm() / out.norm()).nan_to_num(0.0, 0.0, 0.0)
    entries = own.shape[1] - (units.bias is not None)
    return (
        change[:, :entries].reshape(units.fan_in.shape).to(units.fan_in),
        0.0 if units.bias is None else change[:, -1].to(units.fan_in),
        out.to(units.fan_out),
    )


def _square(values: torch.Tensor) -> torch.Tensor:
    flat = values.transpose(0, 1).flatten(1)
    return (flat @ flat.T).double()


def _size(weights: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """Return the root mean square of what the weights make of their inputs."""
    return ((weights @ gram) * weights).sum().clamp_min(0.0).sqrt()


def _ridged(gram: torch.Tensor, ridge: float) -> torch.Tensor:
    diagonal = gram.diagonal()
    return gram + torch.diag(ridge * diagonal + 1e-12 * diagonal.max().clamp_min(1e-300))
