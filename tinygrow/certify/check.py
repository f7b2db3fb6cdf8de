"""The verdict on a certificate: every claim recomputed from the files themselves.

A unit is *checked* where bounds that are computed here prove it, *trusted* where its proof is a
solver's word, which nothing here contradicts, and *refused* otherwise. The certificate is refused
if one unit, one step or one hash is.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tinygrow.certify.bounds import Bounds, Box, input_box, propagate
from tinygrow.certify.document import Certificate, Refusal, Unit, read_certificate
from tinygrow.certify.exact import exact_bounds
from tinygrow.certify.graph import Graph, initializer_hashes, read_graph
from tinygrow.certify.lines import check_lines
from tinygrow.certify.replay import Replay
from tinygrow.certify.same import TOLERANCE, require_same
from tinygrow.errors import TinygrowError

Tightenings = dict[str, tuple[np.ndarray, np.ndarray]]
Word = Literal["checked", "trusted", "refused"]
TIGHTER = 1e-9  # a claimed bound may be tighter than ours by this share of what is summed


@dataclass(frozen=True, slots=True)
class UnitVerdict:
    """What the checker says of one unit.

    Attributes:
        layer: module path.
        index: channel or row of the network before.
        kind: as claimed.
        method: as claimed.
        action: as claimed.
        word: the verdict.
        bound: as computed here; None: not computed.
        in_float32: whether the bound has room for the drift of float32, in any order of sums.
        reason: why it is not checked; empty where it is.
    """

    layer: str
    index: int
    kind: str
    method: str
    action: str
    word: Word
    bound: float | None
    in_float32: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CertificateVerdict:
    """What the checker says of a certificate.

    Attributes:
        model: name.
        units: one verdict a unit.
        steps: how many of each kind were replayed.
        problems: all that is not as claimed; empty where the certificate is accepted.
        notes: what a reader should know.
    """

    model: str
    units: tuple[UnitVerdict, ...]
    steps: Mapping[str, int]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """Say whether nothing was refused."""
        return not self.problems

    def counts(self) -> dict[str, int]:
        """Return how many units have each verdict."""
        found = Counter(unit.word for unit in self.units)
        return {word: found[word] for word in ("checked", "trusted", "refused")}

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; of units those that are not simply checked."""
        acted = Counter(unit.action for unit in self.units)
        return {
            "model": self.model,
            "accepted": self.accepted,
            "verdicts": self.counts(),
            "in_float32": sum(unit.in_float32 for unit in self.units),
            "actions": dict(sorted(acted.items())),
            "steps": dict(self.steps),
            "problems": list(self.problems),
            "notes": list(self.notes),
            "not_checked": [
                {"layer": u.layer, "index": u.index, "kind": u.kind, "method": u.method}
                | {"verdict": u.word, "reason": u.reason}
                for u in self.units
                if u.word != "checked"
            ],
        }


def check_certificate(certificate: Path, before: Path, product: Path) -> CertificateVerdict:
    """Check a certificate against the two networks that it speaks of.

    Args:
        certificate: certificate.json.
        before: uncompressed.onnx, the folded network before.
        product: the fp32 product.

    Raises:
        TinygrowError: a file is missing or broken. A file that is whole but says what is not so
            is refused in the verdict.
    """
    model = ""
    try:
        claimed = read_certificate(certificate)
        model = claimed.model
        graph, digest = read_graph(before)
        shipped, _ = read_graph(product)
        with np.errstate(all="ignore"):
            return _Check(claimed, graph, digest, shipped).run()
    except Refusal as refusal:
        problem = str(refusal)
    except TinygrowError:
        raise
    # Files made to mislead can break any assumption here; whatever does is a reason to refuse.
    except Exception as error:
        problem = f"the files do not fit together ({type(error).__name__}: {error})"[:300]
    return CertificateVerdict(model, (), {}, (problem,), ())


class _Check:
    def __init__(self, claimed: Certificate, before: Graph, digest: str, product: Graph) -> None:
        self.claimed, self.before, self.digest, self.product = claimed, before, digest, product
        self.problems: list[str] = []
        self.notes: list[str] = []

    def run(self) -> CertificateVerdict:
        """Do all checks, each as far as it goes."""
        self._hashes()
        name, box, scale, shift = input_box(self.before)
        self._domain(scale, shift)
        units, bounds = self._units(name, {name: box})
        steps = self._steps(bounds)
        words = Counter(unit.word for unit in units)
        if words["refused"]:
            worst = [u for u in units if u.word == "refused"]
            self.problems += [f"{u.layer}[{u.index}]: {u.reason}" for u in worst[:20]]
            if len(worst) > 20:
                self.problems.append(f"and {len(worst) - 20} units more")
        if words["trusted"]:
            self.notes.append(
                f"{words['trusted']} units rest on a solver's word, which is not recomputed"
            )
        return CertificateVerdict(
            self.claimed.model, units, steps, tuple(self.problems), tuple(self.notes)
        )

    def _hashes(self) -> None:
        if self.claimed.before.get("sha256") != self.digest:
            self.problems.append("the network before is another file: its SHA-256 differs")
        for side, graph in (("before", self.before), ("after", self.product)):
            listed = getattr(self.claimed, side).get("initializers")
            found = initializer_hashes(graph)
            if not isinstance(listed, dict) or listed.keys() != found.keys():
                self.problems.append(f"the weights {side} are not those that are listed")
                continue
            wrong = sorted(name for name in found if listed[name] != found[name])
            if wrong:
                self.problems.append(
                    f"{len(wrong)} weights {side} differ from their hashes: {', '.join(wrong[:5])}"
                )

    def _domain(self, scale: np.ndarray, shift: np.ndarray) -> None:
        domain = self.claimed.domain
        if domain.get("type") != "uint8":
            self.problems.append(
                f"the domain is {str(domain.get('type'))[:40]!r}; only uint8 follows from the type"
                " of the input"
            )
        if domain.get("shape") != list(self.before.shape):
            self.problems.append(f"the domain's shape is not {list(self.before.shape)}")
        for name, value in (("scale", scale), ("shift", shift)):
            try:
                listed = np.array(domain.get(name), dtype=np.float64)
            except (TypeError, ValueError):
                listed = np.zeros(0)
            if listed.shape != value.shape or not (listed.astype(np.float32) == value).all():
                self.problems.append(f"the domain's {name} is not that of the network before")

    def _units(
        self, image: str, start: Mapping[str, Box]
    ) -> tuple[tuple[UnitVerdict, ...], Bounds]:
        """Judge every unit; return bounds that hold if what is trusted does."""
        own = propagate(self.before, start)
        self.notes += own.notes
        lines: Tightenings = {}
        if any(unit.method == "exact" for unit in self.claimed.units):
            lines = exact_bounds(self.before, image, start[image])
            own = propagate(self.before, start, lines)
        if self.claimed.crown:
            found = check_lines(self.before, image, own, self.claimed.crown)
            lines = _both(lines, found.pairs())
            own = propagate(self.before, start, lines)
            self.problems += found.problems[:20]
            self.notes.append(f"{found.checked} linear bounds were recomputed from their slopes")
        verdicts = {u: self._judge(u, own) for u in self.claimed.units}
        open_units = [u for u, v in verdicts.items() if v.word == "trusted"]
        if not open_units:
            return tuple(verdicts.values()), own
        bounds = propagate(self.before, start, self._tightened(open_units, own, lines))
        for unit, verdict in verdicts.items():
            if verdict.word == "refused":
                again = self._judge(unit, bounds)
                if again.word == "checked":
                    verdicts[unit] = _trusted(again, "its bound rests on that of trusted units")
        return tuple(verdicts.values()), bounds

    def _judge(self, unit: Unit, bounds: Bounds) -> UnitVerdict:
        try:
            box = bounds.boxes.get(self.before.layer(unit.layer).output)
            if box is None:
                raise Refusal("nothing is known of its values")
            if unit.index >= len(box.lower):
                raise Refusal(f"{unit.layer} has {len(box.lower)} units")
        except Refusal as refusal:
            return _verdict(unit, "refused", None, False, str(refusal))
        part = [side[unit.index] for side in (box.lower, box.upper, box.drift, box.size)]
        low, high = float(np.min(part[0])), float(np.max(part[1]))
        drift, size = float(np.max(part[2])), float(np.max(part[3]))
        bound, holds, contradicted = {
            "inactive": (high, high <= 0, low > 0),
            "active": (low, low >= 0, high < 0),
            "zero": (high, max(high, -low) <= TIGHTER * size, low > 0 or high < 0),
            "constant": (
                high,
                high - low <= TIGHTER * size and abs(unit.bound - high) <= TIGHTER * size,
                False,
            ),
        }[unit.kind]
        reason = ""
        room = abs(bound) >= drift
        claim = -unit.bound if unit.kind == "active" else unit.bound
        ours = -bound if unit.kind == "active" else bound
        sure = unit.kind in ("inactive", "active")
        if abs(unit.margin - abs(unit.bound)) > 1e-6 * abs(unit.bound) or (sure and claim > 0):
            reason = f"bound {unit.bound:.6g} and margin {unit.margin:.6g} do not fit its kind"
        elif unit.method == "milp" and not contradicted and not holds:
            return _verdict(unit, "trusted", None, False, f"proved by {unit.method} alone")
        elif not holds:
            reason = f"it is not {unit.kind}: the bound is {bound:.6g}"
        elif unit.method != "milp" and claim < ours - TIGHTER * max(size, 1e-300):
            reason = f"the claimed bound {unit.bound:.9g} is tighter than {bound:.9g}"
        elif unit.margin >= unit.slack and abs(bound) < 0.5 * drift:
            reason = f"its slack {unit.slack:.3g} is too small: float32 may stray by {drift:.3g}"
        return _verdict(unit, "refused" if reason else "checked", bound, room, reason)

    def _tightened(self, units: list[Unit], bounds: Bounds, lines: Tightenings) -> Tightenings:
        """Return what lines and trusted units say, by the value that they are about."""
        result = {value: (lower.copy(), upper.copy()) for value, (lower, upper) in lines.items()}
        for unit in units:
            value = self.before.layer(unit.layer).output
            shape = bounds.boxes[value].lower.shape
            lower, upper = result.setdefault(
                value, (np.full(shape, -np.inf), np.full(shape, np.inf))
            )
            if unit.kind == "inactive":
                upper[unit.index] = np.minimum(upper[unit.index], min(unit.bound, 0.0))
            elif unit.kind == "active":
                lower[unit.index] = np.maximum(lower[unit.index], max(unit.bound, 0.0))
        return result

    def _steps(self, bounds: Bounds) -> dict[str, int]:
        replay, done = Replay(self.before, bounds), Counter[str]()
        for number, step in enumerate(self.claimed.steps, 1):
            try:
                replay.apply(step)
            except Refusal as refusal:
                self.problems.append(f"step {number} ({str(step.get('op'))[:40]}): {refusal}")
                return dict(done)
            done[str(step["op"])] += 1
        try:
            if replay.constant is not None:
                require_constant(self.product, replay.constant)
            else:
                require_same(replay.network.graph, replay.network.computed, self.product)
        except Refusal as refusal:
            self.problems.append(f"the product is not what the steps make: {refusal}")
        self._actions(replay)
        if replay.network.computed:
            self.notes.append(
                f"{len(replay.network.computed)} tensors were computed and rounded to float32;"
                f" they are compared to {TOLERANCE:g}, all others bit by bit"
            )
        return dict(done)

    def _actions(self, replay: Replay) -> None:
        """Compare what units are said to have become with what the steps did."""
        left = {replay.network.graph.layer_of(o) for o in replay.network.graph.operations}
        listed = {(u.layer, u.index) for u in self.claimed.units}
        for unit in self.claimed.units:
            gone = unit.layer not in left or replay.constant is not None
            done = replay.acted.get((unit.layer, unit.index))
            if (unit.action != "kept") != (done is not None or gone):
                self.problems.append(
                    f"{unit.layer}[{unit.index}] is said to be {unit.action}, but was"
                    f" {done or ('dropped with its layer' if gone else 'kept')}"
                )
                return
        for (layer, index), action in replay.acted.items():
            if action in ("merged", "folded") and (layer, index) not in listed:
                self.problems.append(f"{layer}[{index}] was {action}, but is not listed")
                return


def _both(one: Tightenings, other: Tightenings) -> Tightenings:
    """Return the tighter of two sets of bounds."""
    result = dict(one)
    for value, (lower, upper) in other.items():
        if value in result:
            lower, upper = np.maximum(lower, result[value][0]), np.minimum(upper, result[value][1])
        result[value] = (lower, upper)
    return result


def require_constant(product: Graph, value: np.ndarray) -> None:
    """Refuse a product that does not give one value whatever it reads."""
    last = product.maker(product.output)
    path = None if last is None else product.layer_of(last)
    if last is None or path is None or last.kind != "Gemm" or len(last.inputs) < 3:
        raise Refusal("it should end in a dense layer of zeros")
    weight, bias = (product.weights.get(name) for name in last.inputs[1:3])
    if weight is None or weight.any() or bias is None or bias.shape != value.shape:
        raise Refusal("its last layer should be zeros, and its bias the constant")
    scale = np.abs(value).max(initial=0.0)
    if not (np.abs(bias - value) <= TOLERANCE * scale).all():
        raise Refusal("it gives another constant")


def _verdict(
    unit: Unit, word: Word, bound: float | None, in_float32: bool, reason: str
) -> UnitVerdict:
    return UnitVerdict(
        unit.layer, unit.index, unit.kind, unit.method, unit.action, word, bound, in_float32, reason
    )


def _trusted(verdict: UnitVerdict, reason: str) -> UnitVerdict:
    return UnitVerdict(
        verdict.layer,
        verdict.index,
        verdict.kind,
        verdict.method,
        verdict.action,
        "trusted",
        verdict.bound,
        verdict.in_float32,
        reason,
    )
