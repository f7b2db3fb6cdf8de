"""The rewrites of a certificate, made again on the weights before, each with its own condition.

Units are named by their index in the network before. Statements about values (a unit is never above
0, a channel is always 0) are about the network before: rewriting changes no value that is left, so
they go on to hold.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinygrow.certify.bounds import Bounds
from tinygrow.certify.document import Refusal, names, number, whole_numbers
from tinygrow.certify.graph import Graph
from tinygrow.certify.narrowing import Narrowing, Reach
from tinygrow.certify.windows import windows_of

RESIDUAL = 1e-9  # of a combination of rows, as a share of the row that it makes
LARGEST = 1e4  # of what a combination sums, as a multiple of the row: more would hide what is left


class Replay:
    """Replays steps on a copy of the network before.

    Args:
        before: as exported.
        bounds: of its values.

    Attributes:
        network: as it stands.
        constant: the product must give this, whatever it reads; None: it is no constant.
        acted: what was done to units: (layer, index) to action.
    """

    def __init__(self, before: Graph, bounds: Bounds) -> None:
        self.before, self.bounds = before, bounds
        self.network = Narrowing(before, bounds)
        self.constant: np.ndarray | None = None
        self.acted: dict[tuple[str, int], str] = {}

    def apply(self, step: Mapping[str, Any]) -> None:
        """Replay one step.

        Raises:
            Refusal: its condition does not hold, or it is none that the checker knows.
        """
        if self.constant is not None:
            raise Refusal("nothing can follow a step that makes the network a constant")
        known = {
            "remove": self._remove,
            "stream": self._stream,
            "constant": self._constant,
            "merge": self._merge,
            "fold": self._fold,
            "shortcut": self._shortcut,
            "constant_network": self._constant_network,
        }
        action = known.get(str(step.get("op")))
        if action is None:
            raise Refusal(f"the step {str(step.get('op'))[:40]!r} is not known to the checker")
        action(step)

    def _remove(self, step: Mapping[str, Any]) -> None:
        """Units that are 0 wherever they are read: rows of one layer, columns of another."""
        layer, reach = self._one_way(step)
        self._cut_zeros(step, layer, reach)

    def _stream(self, step: Mapping[str, Any]) -> None:
        """The same for channels of several writers and readers."""
        writers = names(step.get("writers"), "writers of a step")
        if not writers:
            raise Refusal("a stream without writers")
        reach = self.network.reach(writers[0])
        _same("writers", writers, reach.writers)
        _same("readers", names(step.get("readers"), "readers"), [p for p, _ in reach.readers])
        shifts = [f"{path}.bias" for path in names(step.get("shifts", []), "shifts")]
        _same("shifts", tuple(shifts), reach.shifts)
        self._cut_zeros(step, writers[0], reach)

    def _cut_zeros(self, step: Mapping[str, Any], layer: str, reach: Reach) -> None:
        units = whole_numbers(step.get("units"), f"units of a step at {layer}")
        if not units or not reach.readers:
            raise Refusal(f"a step at {layer} that takes out no unit, or none that is read")
        self.network.require_present(layer, units)
        channels = self._width(layer)
        if len(reach.writers) == 1 and not reach.shifts and "Relu" in reach.kinds:
            low, high = self._ends_now(layer)[:, list(units)]
            if self.network.behind_relus(layer) and (high <= 0).all() and np.isfinite(low).all():
                self._cut(reach, layer, units)
                return
        for reader, value in reach.readers:
            box = self.bounds.boxes.get(value)
            if box is None:
                raise Refusal(f"nothing is known of what {reader} reads")
            lower, upper = box.lower.reshape(channels, -1), box.upper.reshape(channels, -1)
            for unit in units:
                low, high = lower[unit].min(), upper[unit].max()
                if low != 0 or high != 0:
                    raise Refusal(
                        f"{layer}[{unit}] is not always 0 where {reader} reads it: it may lie in"
                        f" [{low:.6g}, {high:.6g}]"
                    )
        self._cut(reach, layer, units)

    def _cut(self, reach: Reach, layer: str, units: tuple[int, ...]) -> None:
        self.network.cut(reach, layer, units)
        self.acted |= {(writer, unit): "removed" for writer in reach.writers for unit in units}

    def _constant(self, step: Mapping[str, Any]) -> None:
        """Units that never change go into the bias of what reads them."""
        layer, reach = self._one_way(step)
        units = whole_numbers(step.get("units"), f"units of a step at {layer}")
        values = _numbers(step.get("values"), (len(units),), f"values of a step at {layer}")
        self.network.require_present(layer, units)
        self._averages_whole(layer, reach)
        (reader, _), ends = reach.readers[0], self._ends_now(layer)
        if "Relu" in reach.kinds:
            ends = np.maximum(ends, 0)
        for unit, claimed in zip(units, values, strict=True):
            low, high = ends[:, unit]
            if low != high or not abs(claimed - low) <= 1e-6 * abs(low):
                raise Refusal(
                    f"{layer}[{unit}] is not always {claimed:.6g}: it may lie in [{low:.6g},"
                    f" {high:.6g}]"
                )
            self._add_to_bias(layer, reader, unit, float(low))
        self.network.cut(reach, layer, units)
        self.acted |= {(layer, unit): "constant" for unit in units}

    def _merge(self, step: Mapping[str, Any]) -> None:
        """Active units that are combinations of others go into what reads these."""
        layer, reach = self._one_way(step)
        units = whole_numbers(step.get("units"), f"units of a step at {layer}")
        into = whole_numbers(step.get("into"), f"units of a step at {layer}")
        shape = (len(units), len(into))
        factors = _numbers(step.get("coefficients"), shape, f"coefficients of {layer}")
        if set(units) & set(into) or not units:
            raise Refusal(f"{layer}: units are merged into themselves")
        self.network.require_present(layer, (*units, *into))
        if any(kind not in ("Relu", "Flatten", "Reshape") for kind in reach.kinds):
            self._averages_whole(layer, reach)
        if "MaxPool" in reach.kinds:
            raise Refusal(f"{layer}: a maximum stands between merged units and their reader")
        least = self._ends(layer)[0]
        for unit in (*units, *into):
            if not least[unit] >= 0:
                raise Refusal(f"{layer}[{unit}] is merged, but may fall to {least[unit]:.6g}")
        self._require_dependent(layer, units, into, factors)
        (reader, _), bias = reach.readers[0], self.network.bias(layer)
        there = [self.network.place(layer, j) for j in into]
        for unit, alpha in zip(units, factors, strict=True):
            own = bias[self.network.place(layer, unit)]
            rest = float(own - alpha @ bias[there])
            if self.network.padded(reader):
                if not abs(rest) <= RESIDUAL * (abs(own) + np.abs(alpha) @ np.abs(bias[there])):
                    raise Refusal(
                        f"{layer}[{unit}] leaves {rest:.6g} to {reader}, whose padding it would not"
                        " reach"
                    )
                rest = 0.0
            self._add_to_bias(layer, reader, unit, rest)
            weight = self.network.matrix(reader)
            read = weight[:, self.network.columns_of(reader, layer, (unit,))]
            for other, factor in zip(into, alpha, strict=True):
                weight[:, self.network.columns_of(reader, layer, (other,))] += factor * read
            self.network.set_matrix(reader, weight)
        self.network.cut(reach, layer, units)
        self.acted |= {(layer, unit): "merged" for unit in units}

    def _require_dependent(
        self, layer: str, units: tuple[int, ...], into: tuple[int, ...], factors: np.ndarray
    ) -> None:
        rows = self.network.matrix(layer)
        rows = rows.reshape(len(rows), -1)
        here = rows[[self.network.place(layer, unit) for unit in units]]
        there = rows[[self.network.place(layer, unit) for unit in into]]
        left = np.abs(here - factors @ there).sum(axis=1)
        scale = np.abs(here).sum(axis=1)
        summed = np.abs(factors) @ np.abs(there).sum(axis=1)
        # A row that is nearly 0 may be left out of a unit that is nearly its bias.
        box = self.bounds.boxes[self.network.graph.layer(layer).inputs[0]]
        reach = max(float(np.abs(box.lower).max()), float(np.abs(box.upper).max()))
        if 0 < reach < np.inf:
            bias = self.network.bias(layer)[[self.network.place(layer, unit) for unit in units]]
            scale = scale + np.abs(bias) / reach
        for unit, rest, whole, terms in zip(units, left, scale, summed, strict=True):
            if not terms <= LARGEST * whole:
                raise Refusal(
                    f"{layer}[{unit}] is made of terms that cancel: {terms:.3g} for {whole:.3g}"
                )
            if not rest <= RESIDUAL * whole:
                raise Refusal(
                    f"{layer}[{unit}] is no combination of the others: {rest:.3g} of {whole:.3g} is"
                    " left"
                )

    def _fold(self, step: Mapping[str, Any]) -> None:
        """A dense layer, all of whose units are stable, is composed with what reads it."""
        layer, reach = self._one_way(step)
        reader, _ = reach.readers[0]
        first, second = self.network.graph.layer(layer), self.network.graph.layer(reader)
        if reach.kinds != ["Relu"] or "Conv" in (first.kind, second.kind):
            raise Refusal(f"{layer} is folded, but not read by a dense layer through a ReLU")
        rows = self.network.rows(layer)
        lower, upper = self._ends(layer)[:, rows]
        active = lower >= 0
        if not (active | (upper <= 0)).all():
            unit = int(rows[~(active | (upper <= 0))][0])
            raise Refusal(f"{layer} is folded, but its unit {unit} is not stable")
        inner, outer = self.network.matrix(layer)[active], self.network.matrix(reader)[:, active]
        bias = outer @ self.network.bias(layer)[active] + self.network.bias(reader)
        if bias.any() or self.network.bias_name(reader) is not None:
            self.network.set_bias(reader, bias)
        self.network.set_matrix(reader, outer @ inner)
        second = self.network.graph.layer(reader)
        self.network.replace(second, (first.inputs[0], *second.inputs[1:]))
        self.network.graph.drop_unread()
        self.network.take_columns(reader, layer)
        self.acted |= {(layer, int(unit)): "folded" for unit in rows}

    def _shortcut(self, step: Mapping[str, Any]) -> None:
        """Of a sum whose one operand is the same for every image the other is left."""
        (layer,) = names(step.get("layer"), "layer of a step")
        operation, (lower, upper) = self.network.graph.layer(layer), self._ends_now(layer)
        kept = self.network.rows(layer)
        lower, upper = lower[kept], upper[kept]
        constant = step.get("kind") == "constant"
        if (lower != upper).any() or (not constant and lower.any()):
            raise Refusal(
                f"{layer} is left out, but is not always {'the same' if constant else '0'}: it may"
                f" lie in [{lower.min():.6g}, {upper.max():.6g}]"
            )
        value = operation.output
        readers = self.network.graph.readers(value)
        while len(readers) == 1 and readers[0].kind == "Identity":
            value = readers[0].output
            readers = self.network.graph.readers(value)
        if len(readers) != 1 or readers[0].kind != "Add" or readers[0].inputs.count(value) != 1:
            raise Refusal(f"{layer} is not added to one other value")
        total = readers[0]
        other = next(name for name in total.inputs if name != value)
        if other in self.network.graph.weights:
            raise Refusal(f"{layer} is not added to one other value")
        if not constant:
            self.network.rename({total.output: other})
            return
        bias = self.network.bias(layer)
        if not np.array_equal(bias, lower):
            raise Refusal(f"{layer} is always the same, but not its bias")
        name, shape = f"{layer}.bias", (-1, 1, 1) if operation.kind == "Conv" else (-1,)
        self.network.graph.weights[name] = bias.astype(np.float32).reshape(shape)
        if not np.array_equal(self.network.graph.weights[name].reshape(-1), bias):
            self.network.computed.add(name)
        self.network.replace(total, (other, name))
        self.network.graph.drop_unread()

    def _constant_network(self, step: Mapping[str, Any]) -> None:
        """The output is one point, and the product gives it whatever it reads."""
        box = self.bounds.boxes.get(self.before.output)
        if box is None or not np.isfinite(box.size).all():
            raise Refusal("the network is said to be a constant, but its output is unknown")
        if not (box.upper - box.lower <= 1e-9 * np.maximum(box.size, 1e-300)).all():
            raise Refusal("the network is said to be a constant, but its output may change")
        self.constant = (box.upper + box.lower) / 2

    def _one_way(self, step: Mapping[str, Any]) -> tuple[str, Reach]:
        """Return a step's layer, which alone writes its channels and has one reader."""
        (layer,) = names(step.get("layer"), "layer of a step")
        reach = self.network.reach(layer)
        if len(reach.writers) > 1 or "Add" in reach.kinds:
            raise Refusal(f"{layer} is not the only layer that writes its channels")
        _same("reader", names(step.get("reader"), "reader"), [p for p, _ in reach.readers])
        if len(reach.readers) != 1:
            raise Refusal(f"the units of {layer} have {len(reach.readers)} readers")
        return layer, reach

    def _width(self, layer: str) -> int:
        box = self.bounds.boxes.get(self.before.layer(layer).output)
        if box is None:
            raise Refusal(f"nothing is known of the values of {layer}")
        return len(box.lower)

    def _ends(self, layer: str) -> np.ndarray:
        """Return lower and upper bounds (2, units before) of a layer, over all positions."""
        value = self.before.layer(layer).output
        if value not in self.bounds.boxes:
            raise Refusal(f"nothing is known of the values of {layer}")
        box = self.bounds.boxes[value].channels()
        return np.stack([box.lower.min(axis=1), box.upper.max(axis=1)])

    def _ends_now(self, layer: str) -> np.ndarray:
        """Return the same, and the bias as it stands of units whose weights are all zero by now.

        What they read may have been a constant, and gone into the bias.
        """
        ends, rows = self._ends(layer).copy(), self.network.rows(layer)
        weight = self.network.matrix(layer)
        silent = ~weight.reshape(len(weight), -1).any(axis=1)
        ends[:, rows[silent]] = self.network.bias(layer)[silent]
        return ends

    def _averages_whole(self, layer: str, reach: Reach) -> None:
        """Refuse pools whose padding a constant would meet."""
        for operation in reach.passed:
            if operation.kind == "AveragePool" and any(windows_of(operation).pads):
                raise Refusal(f"{layer}: a padded pool stands between its units and their reader")

    def _add_to_bias(self, layer: str, reader: str, unit: int, value: float) -> None:
        if value == 0:
            return
        if self.network.padded(reader):
            raise Refusal(
                f"{layer}[{unit}] is {value:.6g}, but the padding of {reader} is 0 beside it"
            )
        read = self.network.matrix(reader)[:, self.network.columns_of(reader, layer, (unit,))]
        change = read.reshape(len(read), -1).sum(axis=1) * value
        self.network.set_bias(reader, self.network.bias(reader) + change)


def _same(what: str, named: tuple[str, ...], found: list[str]) -> None:
    if set(named) != set(found):
        raise Refusal(
            f"the step names the {what} {', '.join(named)[:200]}; in the network it is"
            f" {', '.join(sorted(set(found)))[:200]}"
        )


def _numbers(value: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Return finite numbers from nested lists of this shape, or refuse."""
    if not isinstance(value, list) or len(value) != shape[0]:
        raise Refusal(f"{name}: {shape[0]} are needed")
    if len(shape) == 1:
        return np.array([number(v, name) for v in value], dtype=np.float64)
    parts = [_numbers(v, shape[1:], name) for v in value]
    return np.array(parts, dtype=np.float64).reshape(shape)
