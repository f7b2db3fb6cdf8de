"""A graph whose layers lose units, and still knows each unit by its index before."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from tinygrow.certify.bounds import Bounds
from tinygrow.certify.document import Refusal
from tinygrow.certify.graph import Graph, Operation
from tinygrow.certify.linear import require_flat
from tinygrow.certify.windows import windows_of

_POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean")
_CHANNELWISE = ("Relu", "Identity", "Dropout", "Flatten", "Reshape", *_POOLS)


@dataclass(slots=True)
class Reach:
    """All values that share one numbering of channels.

    Attributes:
        writers: layers whose outputs they are.
        readers: layers that read them, each with the value that it reads.
        passed: the operations in between.
        shifts: weights that are added to them, one number a channel.
    """

    writers: list[str] = field(default_factory=list)
    readers: list[tuple[str, str]] = field(default_factory=list)
    passed: list[Operation] = field(default_factory=list)
    shifts: list[str] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        """Return the kinds of the operations in between."""
        return [operation.kind for operation in self.passed]


class Narrowing:
    """A copy of a network on its way to a smaller one.

    Args:
        before: the network; not changed.
        bounds: of its values, for their shapes.

    Attributes:
        graph: as it stands.
        computed: names of weights that were computed, and not only cut.
    """

    def __init__(self, before: Graph, bounds: Bounds) -> None:
        self.before, self.graph = before, before.copy()
        self.computed: set[str] = set()
        self._boxes = bounds.boxes
        self._rows: dict[str, np.ndarray] = {}
        self._columns: dict[str, np.ndarray] = {}
        self._reads_as: dict[str, str] = {}

    def rows(self, path: str) -> np.ndarray:
        """Return the units that are left of a layer, by their index before."""
        if path not in self._rows:
            self._rows[path] = np.arange(self._sides(path)[0])
        return self._rows[path]

    def columns(self, path: str) -> np.ndarray:
        """Return the inputs that are left of a layer, by their index before."""
        if path not in self._columns:
            self._columns[path] = np.arange(self._sides(path)[1])
        return self._columns[path]

    def take_columns(self, path: str, other: str) -> None:
        """Give a layer the inputs of another, instead of which it now reads them."""
        self._columns[path] = self.columns(other)
        self._reads_as[path] = self._reads_as.get(other, other)

    def columns_of(self, path: str, layer: str, units: Collection[int]) -> np.ndarray:
        """Return where the columns of a reader stand that read these units of a layer."""
        inputs = self._sides(self._reads_as.get(path, path))[1]
        each = inputs // self._sides(layer)[0]  # positions that were flattened
        wanted = [np.arange(unit * each, (unit + 1) * each) for unit in units]
        return np.searchsorted(self.columns(path), np.concatenate([*wanted, []]))

    def place(self, path: str, unit: int) -> int:
        """Return where a unit stands by now."""
        return int(np.searchsorted(self.rows(path), unit))

    def require_present(self, layer: str, units: Collection[int]) -> None:
        """Refuse units that a layer never had, or has no longer."""
        left = set(self.rows(layer).tolist())
        for unit in units:
            if unit not in left:
                raise Refusal(f"{layer} has no unit {unit}, or no longer")

    def reach(self, layer: str) -> Reach:
        """Return all that shares the channels of a layer's output.

        Raises:
            Refusal: something in between cannot be narrowed.
        """
        reach, seen, waiting = Reach(), set(), [self.graph.layer(layer).output]
        while waiting:
            value = waiting.pop()
            if value in seen:
                continue
            seen.add(value)
            if value in (self.graph.output, self.graph.input):
                raise Refusal(f"the units of {layer} reach the network's input or output")
            maker = self.graph.maker(value)
            path = None if maker is None else self.graph.layer_of(maker)
            if path is not None:
                reach.writers.append(path)
            elif maker is not None:
                waiting += self._through(maker, layer, reach)
            for reader in self.graph.readers(value):
                path = self.graph.layer_of(reader)
                if path is not None:
                    reach.readers.append((path, value))
                else:
                    waiting += [*self._through(reader, layer, reach), reader.output]
        return reach

    def _through(self, operation: Operation, layer: str, reach: Reach) -> list[str]:
        """Return the values that an operation takes channel by channel."""
        data = [name for name in operation.inputs if name and name not in self.graph.weights]
        constants = [name for name in operation.inputs if name in self.graph.weights]
        if operation.kind in ("Flatten", "Reshape") and len(data) == 1:
            box = self._boxes.get(data[0])
            if box is None:
                raise Refusal(f"the units of {layer} reach a value of unknown shape")
            require_flat(self.before, operation, box.lower.shape)
        shift = operation.kind == "Add" and len(data) == len(constants) == 1
        if shift:
            shape = self.graph.weights[constants[0]].shape
            shift = len(shape) in (1, 3) and shape[1:] in ((), (1, 1))
        channelwise = operation.kind in _CHANNELWISE and len(data) == 1
        if not (shift or channelwise or (operation.kind == "Add" and len(data) == 2)):
            raise Refusal(f"the units of {layer} reach {operation.kind}, which cannot be narrowed")
        if operation not in reach.passed:
            reach.passed.append(operation)
            reach.shifts += constants if shift else []
        return data

    def behind_relus(self, layer: str) -> bool:
        """Say whether each way from a layer's output to what else reads it begins with a ReLU."""
        waiting = [self.graph.layer(layer).output]
        while waiting:
            for reader in self.graph.readers(waiting.pop()):
                if reader.kind in ("Identity", "Dropout", "Flatten", "Reshape", *_POOLS):
                    waiting.append(reader.output)
                elif reader.kind != "Relu":
                    return False
        return True

    def cut(self, reach: Reach, layer: str, units: Collection[int]) -> None:
        """Delete rows of all writers, entries of all shifts and columns of all readers."""
        places = [self.place(layer, unit) for unit in units]
        for path, _ in reach.readers:
            gone = self.columns_of(path, layer, units)
            self._delete(path, gone, side=1)
            self._columns[path] = np.delete(self.columns(path), gone)
        for name in reach.shifts:
            self.graph.weights[name] = np.delete(self.graph.weights[name], places, axis=0)
        for path in reach.writers:
            if not np.array_equal(self.rows(path), self.rows(layer)):
                raise Refusal(f"{path} has other units than {layer}")
        left = np.delete(self.rows(layer), places)
        for path in reach.writers:
            self._delete(path, places, side=0)
            self._rows[path] = left
            bias = self.bias_name(path)
            if bias is not None:
                self.graph.weights[bias] = np.delete(self.graph.weights[bias], places)

    def _delete(self, path: str, places: np.ndarray | list[int], side: int) -> None:
        operation = self.graph.layer(path)
        if operation.attributes.get("group", 1) != 1:
            raise Refusal(f"{path} has groups, which the checker does not narrow")
        axis = side if _rows_first(operation) else 1 - side
        name = operation.inputs[1]
        self.graph.weights[name] = np.delete(self.graph.weights[name], places, axis=axis)

    def matrix(self, path: str) -> np.ndarray:
        """Return a layer's weights, float64, outputs first."""
        operation = self.graph.layer(path)
        weight = self.graph.weights[operation.inputs[1]].astype(np.float64)
        return weight if _rows_first(operation) else weight.T.copy()

    def bias(self, path: str) -> np.ndarray:
        """Return a layer's bias, float64; zeros where it has none."""
        name = self.bias_name(path)
        if name is None:
            return np.zeros(len(self.matrix(path)))
        return self.graph.weights[name].astype(np.float64)

    def bias_name(self, path: str) -> str | None:
        """Return the name of a layer's bias."""
        inputs = self.graph.layer(path).inputs
        return inputs[2] if len(inputs) > 2 and inputs[2] else None

    def set_matrix(self, path: str, matrix: np.ndarray) -> None:
        """Replace a layer's weights."""
        operation = self.graph.layer(path)
        name = operation.inputs[1]
        self.graph.weights[name] = matrix if _rows_first(operation) else matrix.T
        self.computed.add(name)

    def set_bias(self, path: str, bias: np.ndarray) -> None:
        """Replace a layer's bias, or give it one."""
        name = self.bias_name(path)
        if name is None:
            operation, name = self.graph.layer(path), f"{path}.bias"
            if operation.kind == "MatMul" or name in self.graph.weights:
                raise Refusal(f"{path} has no bias, and can be given none")
            inputs = (*operation.inputs[:2], name)
            self.replace(operation, inputs)
        self.graph.weights[name] = bias
        self.computed.add(name)

    def replace(self, operation: Operation, inputs: tuple[str, ...]) -> None:
        """Give an operation other inputs."""
        changed = Operation(operation.kind, inputs, operation.output, operation.attributes)
        self.graph.operations = [changed if o is operation else o for o in self.graph.operations]

    def rename(self, renamed: Mapping[str, str]) -> None:
        """Have all that reads a value read another instead, and drop what nothing needs."""
        for operation in list(self.graph.operations):
            if any(name in renamed for name in operation.inputs):
                self.replace(operation, tuple(renamed.get(n, n) for n in operation.inputs))
        self.graph.output = renamed.get(self.graph.output, self.graph.output)
        self.graph.drop_unread()

    def padded(self, path: str) -> bool:
        """Say whether a layer sees zeros beside its input."""
        operation = self.graph.layer(path)
        if operation.kind != "Conv":
            return False
        return any(windows_of(operation, self.matrix(path).shape[2:]).pads)

    def _sides(self, path: str) -> tuple[int, int]:
        """Return outputs and inputs of a layer before."""
        operation = self.before.layer(path)
        shape = self.before.weights[operation.inputs[1]].shape
        return (shape[0], shape[1]) if _rows_first(operation) else (shape[1], shape[0])


def _rows_first(operation: Operation) -> bool:
    return operation.kind == "Conv" or (
        operation.kind == "Gemm" and operation.attributes.get("transB", 0) == 1
    )
