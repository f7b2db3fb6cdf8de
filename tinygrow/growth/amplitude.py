"""How large the new neurons enter: normalisation, sign, line search (tiny.md 1.9, appendix E.3).

What looks at the function looks at a trial copy of the network that is widened for good and whose
new weights are then scaled, so what is measured is what training will see; BatchNorm uses the
mini-batch's statistics, as everywhere in growth.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from tinygrow.distributed import add_up, of_first, share
from tinygrow.errors import TinygrowError
from tinygrow.growth.line_search import search
from tinygrow.growth.patches import Layer
from tinygrow.growth.replay import Replay
from tinygrow.growth.signs import both_signs, first_order_gains, neuron_signs
from tinygrow.growth.sites import Site
from tinygrow.growth.statistics import apply_layer, batch_statistics
from tinygrow.growth.surgery import NewUnits, widen
from tinygrow.growth.transparent import transparent
from tinygrow.settings.growth import AmplitudeSettings
from tinygrow.training.batches import Batch
from tinygrow.training.device import full_float32


@dataclass(frozen=True, slots=True)
class Amplitude:
    """The outcome of the search.

    Attributes:
        units: as they are to be added (zero fan-out where rejected and kept), or None: add none.
        sign: +1 or -1, of fan-in and fan-out together.
        factor: chosen amplitude gamma, see `shares`. 0: rejected.
        amplitudes: all gamma that were tried, from 0 upwards.
        losses: mean training loss at each.
        refined_loss: that after further passes over the units, where these gained.
    """

    units: NewUnits | None
    sign: int
    factor: float
    amplitudes: tuple[float, ...]
    losses: tuple[float, ...]
    refined_loss: float | None = None

    @property
    def rejected(self) -> bool:
        """Whether no amplitude lowered the loss enough."""
        return self.factor == 0.0

    @property
    def loss_before(self) -> float:
        """Mean loss without the new neurons."""
        return self.losses[0]

    @property
    def loss_after(self) -> float:
        """Mean loss with the neurons as they are added."""
        if self.refined_loss is not None:
            return self.refined_loss
        return self.losses[self.amplitudes.index(self.factor)]


@torch.no_grad()
def mean_loss(
    network: nn.Module,
    batches: Sequence[Batch],
    label_smoothing: float,
    forward: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> float:
    """Return the mean loss over the batches, summed in float64; `forward` may stand for a call."""
    forward = forward or network
    total, images = 0.0, 0
    with batch_statistics(network), full_float32():
        for x, y in share(batches):
            losses = F.cross_entropy(
                forward(x), y, reduction="none", label_smoothing=label_smoothing
            )
            total += float(losses.double().sum())
            images += len(y)
    total, images = add_up(torch.tensor([total, images], dtype=torch.float64)).tolist()
    return total / images


class Trial:
    """A widened copy of a network whose new units can be scaled.

    Args:
        network: is copied, not changed.
        site: where.
        units: at amplitude factor 1.
    """

    def __init__(self, network: nn.Module, site: Site, units: NewUnits) -> None:
        self.network = copy.deepcopy(network)
        self.site = site
        self.units = units
        widen(self.network, site, units)
        self._forward: Callable[[torch.Tensor], torch.Tensor] = self.network

    def expect_repeats(self) -> None:
        """Keep, from now on, what batches come to before the site, for when they come again."""
        self._forward = Replay(self.network, self.site.first)

    @torch.no_grad()
    def set(self, fan_in: float, fan_out: float) -> None:
        """Multiply the new units' fan-in (with bias) and fan-out."""
        first, second = self.site.layers(self.network)
        count = len(self.units)
        units = self.units.scaled(fan_in, fan_out)
        first.weight[-count:] = units.fan_in
        second.weight[:, -units.columns.shape[1] :] = units.columns
        bias = units.layer_bias(self.site)
        if first.bias is not None and bias is not None:
            first.bias[-count:] = bias
        if units.norm_weight is not None and units.norm_bias is not None:
            assert self.site.norm is not None
            norm = self.network.get_submodule(self.site.norm)
            norm.get_parameter("weight")[-count:] = units.norm_weight
            norm.get_parameter("bias")[-count:] = units.norm_bias

    def loss(self, batches: Sequence[Batch], label_smoothing: float) -> float:
        """Return the mean loss over the batches, summed in float64."""
        return mean_loss(self.network, batches, label_smoothing, self._forward)

    @torch.no_grad()
    def norm_ratios(self, batch: Batch) -> tuple[float, float]:
        """Return how much smaller the new units are than the old, in Frobenius norms.

        The first number compares pre-activations of the widened layer (old units against new), the
        second outputs of the layer behind it (old units' share with the bias, which is the output
        before the extension, against what the new units add).
        """
        first, second = self.site.layers(self.network)
        kept: dict[str, torch.Tensor] = {}

        def keep(_: nn.Module, __: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            kept["z"] = output.clone()  # before an activation in place

        def keep_input(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            kept["h"] = inputs[0]

        handles = [
            first.register_forward_hook(keep),
            second.register_forward_pre_hook(keep_input),
        ]
        try:
            with batch_statistics(self.network), full_float32():
                self.network(batch[0])
        finally:
            for handle in handles:
                handle.remove()
        z, h, weight = kept["z"], kept["h"], second.weight
        new, read = len(self.units), self.units.columns.shape[1]
        z_old, z_new = _parted(z, _channel(first), new)
        h_old, h_new = _parted(h, _channel(second), read)
        outputs = apply_layer(second, h_old, weight[:, :-read], second.bias)
        added = apply_layer(second, h_new, weight[:, -read:], None)
        return _ratio(z_old, z_new), _ratio(outputs, added)


def normalize(network: nn.Module, site: Site, units: NewUnits, batch: Batch) -> NewUnits:
    """Return units as large in function as the layer's own (appendix E.3, functional form).

    Fan-in and bias are scaled so that the new pre-activations have the Frobenius norm of the old
    ones on `batch`, then fan-out so that the new contribution has that of the second layer's
    output.
    """
    trial = Trial(network, site, units)
    fan_in, _ = trial.norm_ratios(batch)
    trial.set(fan_in, 1.0)
    _, fan_out = trial.norm_ratios(batch)
    return units.scaled(fan_in, fan_out)


def normalize_weights(units: NewUnits) -> NewUnits:
    """Return units of mean square norm 1 (appendix E.3, parametric form; zeros stay zeros).

    (1/K) sum ||alpha_k||^2 = 1 with the bias as part of alpha_k, and likewise for omega_k.
    """
    alpha = [units.fan_in] if units.bias is None else [units.fan_in, units.bias]
    return units.scaled(_to_unit(alpha, len(units)), _to_unit([units.fan_out], len(units)))


def normalized(
    network: nn.Module,
    site: Site,
    units: NewUnits,
    batches: Sequence[Batch],
    settings: AmplitudeSettings,
) -> NewUnits:
    """Return units of the normalisation, and behind the norm, that the settings name."""
    if settings.normalization == "functional":
        units = normalize(network, site, units, batches[0])
    elif settings.normalization == "parametric":
        units = normalize_weights(units)
    if settings.transparent_norm and site.norm is not None:
        units = transparent(network, site, units, batches)
        if settings.normalization == "functional":  # the fan-out now meets other activations
            units = normalize(network, site, units, batches[0])
    return units


def shares(units: NewUnits, gamma: float) -> tuple[float, float]:
    """Return the factors of fan-in and fan-out whose product is the amplitude gamma.

    Both carry its square root. Without fan-in, as GradMax's, the fan-out carries all of it, and so
    it does behind a norm that is transparent for the fan-in as it stands.
    """
    silent = not units.fan_in.any() and (units.bias is None or not units.bias.any())
    return (
        (1.0, gamma)
        if silent or units.norm_weight is not None
        else (math.sqrt(gamma), math.sqrt(gamma))
    )


def choose_amplitude(
    network: nn.Module,
    site: Site,
    units: NewUnits,
    batches: Sequence[Batch],
    settings: AmplitudeSettings,
    label_smoothing: float = 0.0,
) -> Amplitude:
    """Normalise, choose the sign, search the amplitude factor (or take the fixed one).

    Args:
        network: before the extension; not changed.
        site: where.
        units: straight from the solver, at least one.
        batches: training images of the search; the first serves normalisation and sign.
        settings: see `AmplitudeSettings`.
        label_smoothing: that of the training loss.

    Raises:
        TinygrowError: the loss overflows at a fixed amplitude.
    """
    units = normalized(network, site, units, batches, settings)
    if settings.sign == "neuron":
        units = units.signed(neuron_signs(network, site, units, batches[0], label_smoothing))
    sign = 1
    if settings.sign == "group":
        trial = Trial(network, site, units)
        if _runs_in_float64(trial.network, batches[0][0]):
            sign = better_sign(trial, batches[0], settings.sign_amplitude, label_smoothing)
        else:
            gains = first_order_gains(
                network, site, both_signs(units), batches[:1], label_smoothing
            )
            sign = of_first(
                1 if gains[0, : len(units)].sum() >= gains[0, len(units) :].sum() else -1
            )
    trial = Trial(network, site, units)
    trial.expect_repeats()

    def factors(gamma: float) -> tuple[float, float]:
        fan_in, fan_out = shares(units, gamma)
        return sign * fan_in, sign * fan_out

    def loss_at(gamma: float) -> float:
        trial.set(*factors(gamma))
        return trial.loss(batches, label_smoothing)

    if settings.search == "fixed":
        amplitudes = [0.0, settings.fixed_factor]
        curve = [loss_at(gamma) for gamma in amplitudes]
        if not math.isfinite(curve[1]):
            raise TinygrowError(
                f"the loss is {curve[1]} with new neurons of amplitude {settings.fixed_factor:g};"
                " lower amplitude.fixed_factor or choose another amplitude.search"
            )
        factor = settings.fixed_factor
    else:
        amplitudes, curve = search(loss_at, settings)
        lowest = min(range(len(curve)), key=curve.__getitem__)
        gain = (curve[0] - curve[lowest]) / max(abs(curve[0]), 1e-30)
        factor = amplitudes[lowest] if gain >= settings.min_gain else 0.0
    added: NewUnits | None = units.scaled(*factors(factor))
    if factor == 0.0:
        added = units.scaled(sign, 0.0) if settings.when_rejected == "preserve" else None
    return Amplitude(added, sign, factor, tuple(amplitudes), tuple(curve))


def settled_amplitude(
    network: nn.Module,
    site: Site,
    units: NewUnits,
    factor: float,
    batches: Sequence[Batch],
    label_smoothing: float = 0.0,
) -> Amplitude:
    """Return units whose amplitude is not to be chosen, with the loss before and after them.

    Args:
        network: before the extension; not changed.
        site: where.
        units: as they are to be added.
        factor: their amplitude, for the log.
        batches: training images.
        label_smoothing: that of the training loss.

    Raises:
        TinygrowError: the loss overflows.
    """
    wide = Trial(network, site, units)
    losses = tuple(mean_loss(n, batches, label_smoothing) for n in (network, wide.network))
    if not math.isfinite(losses[1]):
        raise TinygrowError(f"the loss is {losses[1]} with new neurons; choose another method")
    return Amplitude(units, 1, factor, (0.0, factor), losses)


def better_sign(trial: Trial, batch: Batch, amplitude: float, label_smoothing: float) -> int:
    """Return the sign of the new units, +1 or -1, with the lower loss at `amplitude`.

    Works in float64: without BatchNorm, units of an amplitude of 1e-8 change float32 losses by
    less than these are rounded (half of the signs of a perceptron came out wrong).

    Args:
        trial: is left in float64, to be thrown away.
        batch: training images.
        amplitude: factor at which the signs are compared.
        label_smoothing: that of the training loss.
    """
    trial.network.double()
    images, labels = batch[0].double(), batch[1]
    fan_in, fan_out = shares(trial.units, amplitude)
    losses = []
    for sign in (1, -1):
        trial.set(sign * fan_in, sign * fan_out)
        losses.append(trial.loss([(images, labels)], label_smoothing))
    return 1 if losses[0] <= losses[1] else -1


@torch.no_grad()
def _runs_in_float64(network: nn.Module, images: torch.Tensor) -> bool:
    """Say whether a network, which is left in float64, names no other precision in its code."""
    network.double()
    try:
        with batch_statistics(network):
            network(images[:2].double())
    except RuntimeError:
        return False
    return True


def _channel(layer: Layer) -> int:
    """Return the dimension of channels; tokens may stand before those of a linear layer."""
    return -1 if isinstance(layer, nn.Linear) else 1


def _parted(x: torch.Tensor, dim: int, new: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the old channels and the `new` last ones."""
    old = x.shape[dim] - new
    return x.narrow(dim, 0, old), x.narrow(dim, old, new)


def _ratio(old: torch.Tensor, new: torch.Tensor) -> float:
    return float(old.double().norm() / (new.double().norm() + 1e-8))


def _to_unit(weights: Sequence[torch.Tensor], count: int) -> float:
    """Return the factor that makes the mean square norm of `count` vectors 1; 1 for zeros."""
    square = sum(float(w.double().square().sum()) for w in weights)
    return math.sqrt(count / square) if square else 1.0
