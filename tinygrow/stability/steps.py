"""Steps of a compression, applied to a network.

A step is plain data, as a certificate holds it. Units are named by their index in the layer as it
was before all steps; weights are as the steps before left them. R's columns of a unit are several
where R is dense and reads flattened maps.

- `{"op": "remove", "layer": L, "reader": R, "units": [...]}`: units that are always 0 go: rows of L
  with their biases, columns of R.
- `{"op": "stream", "writers": [...], "readers": [...], "shifts": [...], "units": [...]}`: the same
  for channels that several layers write or read: rows of all writers, entries of all shifts
  (`PATH.bias`), columns of all readers.
- `{"op": "constant", "layer": L, "reader": R, "units": [...], "values": [...]}`: what R reads of a
  unit is always its value v: b_R += v times the sum of R's weights of it; then it goes. R's input
  is not padded.
- `{"op": "merge", "layer": L, "reader": R, "units": [...], "into": [j...], "coefficients":
  [[...]...]}`: of active units, unit i is the sum over j of a_ij times unit j, plus
  d_i = b_i - sum_j a_ij b_j: R's weights of j += a_ij times those of i, b_R += d_i times the sum of
  R's weights of i; then i goes. Where R's input is padded, d_i is 0 but for rounding, and nothing
  is added to b_R.
- `{"op": "fold", "layer": L, "reader": R}`: all units of the dense L are active:
  b_R += W_R b_L, then W_R := W_R W_L; L is gone.
- `{"op": "shortcut", "layer": L, "kind": "zero" | "constant", "dropped": [...]}`: of the sum that
  L's output goes into the other value is left; plus L's bias, where that is what L always gives
  (`L.bias` is then (C, 1, 1)). `dropped` are the layers that are gone, L among them.
- `{"op": "constant_network", "layer": L, "logits": [...], "dropped": [...]}`: the network always
  gives these logits: W_L is zeros (classes, 1), b_L the logits; L reads the first number of the
  image.

A layer without a bias gets one of zeros before a step adds to it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from tinygrow.errors import TinygrowError
from tinygrow.growth.patches import Layer
from tinygrow.growth.resize import keep_inputs, keep_outputs
from tinygrow.networks.compressed import edited, give_bias, set_widths
from tinygrow.stability.spaces import unpadded

Step = Mapping[str, Any]


class Rewriter:
    """A folded network on its way to a smaller one that computes the same.

    Args:
        folded: from `fold_batch_norm`; taken over and changed. In float64 the steps round nothing
            that matters; in float32 deletions leave the other weights as they are.

    Attributes:
        network: as it is by now.
        kept: units that are left of each layer, by their index before.
    """

    def __init__(self, folded: nn.Module) -> None:
        self.network = folded
        self.kept: dict[str, list[int]] = {}
        self._shapes: dict[str, list[int]] = {}
        self._biased: list[str] = []
        self._edits: list[dict[str, Any]] = []
        for path, layer in self.layers().items():
            self.kept[path] = list(range(len(layer.weight)))
            self._shapes[path] = list(layer.weight.shape[:2])

    def layers(self) -> dict[str, Layer]:
        """Return convolutions and dense layers by their module paths."""
        modules = self.network.named_modules()
        return {path: module for path, module in modules if isinstance(module, Layer)}

    def layer(self, path: str) -> Layer:
        """Return a layer.

        Raises:
            TinygrowError: there is none by that path.
        """
        found = self.layers().get(path)
        if found is None:
            raise TinygrowError(f"the network has no layer {path!r}; make its certificate again")
        return found

    @torch.no_grad()
    def apply(self, step: Step) -> None:
        """Take one step.

        Raises:
            TinygrowError: it does not fit the network.
        """
        operations = {
            "remove": self._remove,
            "stream": self._stream,
            "constant": self._constant,
            "merge": self._merge,
            "fold": self._fold,
            "shortcut": self._edit,
            "constant_network": self._constant_network,
        }
        try:
            operations[step["op"]](step)
        except (KeyError, LookupError, ValueError, RuntimeError) as error:
            raise TinygrowError(
                f"step {step.get('op')!r} does not fit the network ({error}); run the stage"
                " compress again"
            ) from error

    def structure(self) -> dict[str, Any]:
        """Return what `tinygrow.networks.compressed.restructured` builds the network by."""
        now = {path: list(layer.weight.shape[:2]) for path, layer in self.layers().items()}
        left = dict(self.network.named_parameters())
        shifts = {
            path: len(left[f"{path}.bias"])
            for path in (edit["layer"] for edit in self._edits if edit.get("kind") == "constant")
            if f"{path}.bias" in left
        }
        return {
            "widths": {path: now[path] for path in now if now[path] != self._shapes[path]},
            "biased": [path for path in self._biased if path in now],
            "edits": self._edits,
            "shifts": shifts,
        }

    def position(self, path: str, unit: int) -> int:
        """Return where a unit stands by now."""
        return self.kept[path].index(unit)

    def _remove(self, step: Step) -> None:
        self._drop((step["layer"],), (step["reader"],), (), step["units"])

    def _stream(self, step: Step) -> None:
        self._drop(step["writers"], step["readers"], step["shifts"], step["units"])

    def _constant(self, step: Step) -> None:
        path, reader = step["layer"], self._with_bias(step["reader"])
        places = torch.tensor([self.position(path, unit) for unit in step["units"]])
        weights = self._columns(reader, path)[:, places].flatten(2).sum(2)
        values = torch.tensor(step["values"], dtype=torch.float64)
        assert reader.bias is not None
        reader.bias += (weights.double() @ values).to(reader.bias)
        self._remove(step)

    def _merge(self, step: Step) -> None:
        path, layer, reader = step["layer"], self.layer(step["layer"]), self.layer(step["reader"])
        gone = torch.tensor([self.position(path, unit) for unit in step["units"]])
        into = torch.tensor([self.position(path, unit) for unit in step["into"]])
        coefficients = torch.tensor(step["coefficients"], dtype=torch.float64).to(layer.weight)
        columns = self._columns(reader, path)
        read = columns[:, gone]
        if layer.bias is not None and unpadded(reader):
            apart = layer.bias[gone] - coefficients @ layer.bias[into]
            if bool(apart.any()):
                reader = self._with_bias(step["reader"])
                assert reader.bias is not None
                reader.bias += read.flatten(2).sum(2) @ apart
        columns[:, into] += torch.einsum("rg...,gi->ri...", read, coefficients)
        reader.weight.copy_(columns.reshape(reader.weight.shape))
        self._remove(step)

    def _fold(self, step: Step) -> None:
        layer, reader = self.layer(step["layer"]), self.layer(step["reader"])
        if not isinstance(layer, nn.Linear) or not isinstance(reader, nn.Linear):
            raise ValueError(f"{step['layer']} and {step['reader']} are not both dense")
        if layer.bias is not None:
            bias = self._with_bias(step["reader"]).bias
            assert bias is not None
            bias += reader.weight @ layer.bias
        reader.weight = nn.Parameter(reader.weight @ layer.weight, requires_grad=False)
        reader.in_features = layer.in_features
        self._edit(step)

    def _constant_network(self, step: Step) -> None:
        head = self._with_bias(step["layer"])
        logits = torch.tensor(step["logits"], dtype=torch.float64)
        set_widths(head, len(logits), 1)
        head.requires_grad_(False)
        assert head.bias is not None
        head.bias.copy_(logits)
        self._edit(step)

    def _edit(self, step: Step) -> None:
        edit = {key: step[key] for key in ("op", "layer", "reader", "kind") if key in step}
        self.network = edited(self.network, [edit]).eval()
        self._edits.append(edit)
        left = self.layers()
        for path in [path for path in self.kept if path not in left]:
            del self.kept[path]

    def _drop(
        self,
        writers: tuple[str, ...],
        readers: tuple[str, ...],
        shifts: tuple[str, ...],
        units: Any,
    ) -> None:
        """Take units out of all that writes, shifts or reads them."""
        old = self.kept[writers[0]]
        gone = set(units)
        if not gone <= set(old):
            raise ValueError(f"{writers[0]} has no units {sorted(gone - set(old))[:3]}")
        left = torch.tensor([i for i, unit in enumerate(old) if unit not in gone])
        if not len(left):
            raise ValueError(f"{writers[0]} would have no unit left")
        for path in readers:
            keep_inputs(self.layer(path), left, len(old))
        for path in shifts:
            shift = self.network.get_submodule(path)
            bias = shift.get_parameter("bias")
            shift.bias = nn.Parameter(bias[left], requires_grad=False)
        for path in writers:
            if self.kept[path] != old:
                raise ValueError(f"{path} has other units than {writers[0]}")
            keep_outputs(self.layer(path), left)
        for path in writers:
            self.kept[path] = [old[i] for i in left.tolist()]

    def _columns(self, reader: Layer, path: str) -> torch.Tensor:
        """Return a reader's weights unit by unit: (outputs, units, weights of a unit...)."""
        weight = reader.weight.detach().clone()
        return weight if weight.ndim == 4 else weight.unflatten(1, (len(self.kept[path]), -1))

    def _with_bias(self, path: str) -> Layer:
        layer = self.layer(path)
        if give_bias(layer):
            self._biased.append(path)
        return layer
