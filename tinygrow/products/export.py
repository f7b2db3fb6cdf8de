"""From a folded network to one self-contained ONNX file whose bytes depend on nothing else."""

import copy
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from tinygrow.data.prepared import DataCard
from tinygrow.deploy.contract import BATCH, INPUT, OUTPUT
from tinygrow.errors import TinygrowError
from tinygrow.files import write_bytes
from tinygrow.products.graph import finish
from tinygrow.products.quiet import quiet
from tinygrow.settings.products import ExportSettings

SCALE = "normalize.scale"
SHIFT = "normalize.shift"


class Product(nn.Module):
    """uint8 images in, logits out: the normalisation is one Mul and one Add before the network.

    They stay apart from the first convolution: its zero padding stands for the mean colour only
    behind the normalisation.

    Args:
        network: maps normalised float32 images to logits.
        card: mean and standard deviation of the channels.
    """

    def __init__(self, network: nn.Module, card: DataCard) -> None:
        super().__init__()
        scale, shift = normalization(card)
        self.network = network
        self.scale = nn.Buffer(torch.from_numpy(scale))
        self.shift = nn.Buffer(torch.from_numpy(shift))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 (B, C, H, W) to float32 logits (B, classes)."""
        return self.network(images.to(torch.float32) * self.scale + self.shift)


def normalization(card: DataCard) -> tuple[np.ndarray, np.ndarray]:
    """Return scale and shift, float32 (1, C, 1, 1): (x / 255 - mean) / std = scale x + shift."""
    mean, std = (np.array(v, np.float64).reshape(1, -1, 1, 1) for v in (card.mean, card.std))
    if not (std > 0).all():
        raise TinygrowError(
            f"the standard deviation of a channel is 0 ({list(card.std)}): all training images are"
            " alike in it; leave that channel out (mode: grey) or check the images"
        )
    return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


def export_onnx(
    folded: nn.Module,
    card: DataCard,
    settings: ExportSettings,
    metadata: Mapping[str, str],
    path: Path,
) -> None:
    """Write the ONNX file atomically; the same values give the same bytes.

    Args:
        folded: network without BatchNorm, from `fold_batch_norm`.
        card: of the data it was trained on.
        settings: of the export.
        metadata: entries for the file, from `build_metadata`; the digest is added.
        path: of the .onnx file.

    Raises:
        TinygrowError: PyTorch cannot export the network, or changed its weights.
    """
    product = Product(folded, card).eval()
    model = _structure(product, card.shape, settings.opset)
    _fill(model, product)
    write_bytes(path, finish(model, metadata))


def _structure(product: Product, shape: tuple[int, int, int], opset: int) -> onnx.ModelProto:
    """Export the graph with stand-in weights.

    The exporter merges equal tensors and drops biases of zeros; distinct random stand-ins leave it
    nothing to merge, so that the graph follows from the architecture alone.
    """
    stand_in = copy.deepcopy(product)
    generator = torch.Generator().manual_seed(0)
    for tensor in stand_in.state_dict().values():
        if tensor.is_floating_point():  # whole numbers count and point: the graph hangs on them
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    # The optimiser works out what hangs on weights alone, such as one in another shape: where that
    # loses a weight, the graph is taken as it is.
    model, lost = _exported(stand_in, shape, opset, optimize=True)
    if lost:
        model, lost = _exported(stand_in, shape, opset, optimize=False)
    if lost:
        raise TinygrowError(
            f"PyTorch {torch.__version__} changed {lost[0]!r} while exporting; use a version that"
            " tinygrow was tested with (requirements.lock)"
        )
    return model


def _exported(
    stand_in: Product, shape: tuple[int, int, int], opset: int, *, optimize: bool
) -> tuple[onnx.ModelProto, list[str]]:
    """Return the graph, and the tensors of the network that are not in it as they were."""
    example = torch.zeros(2, *shape, dtype=torch.uint8)
    try:
        with quiet():
            program = torch.onnx.export(
                stand_in,
                (example,),
                dynamo=True,
                optimize=optimize,
                verbose=False,
                external_data=False,
                opset_version=opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes={"images": {0: torch.export.Dim(BATCH)}},
            )
    except (torch.onnx.OnnxExporterError, RuntimeError, ImportError) as error:
        raise TinygrowError(
            f"PyTorch {torch.__version__} cannot export the network to opset {opset}"
            f" ({str(error).strip().splitlines()[0]}); try another opset, or install onnxscript"
        ) from error
    assert program is not None
    model = onnx.ModelProto()
    model.CopyFrom(program.model_proto)
    written = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    lost = [
        name
        for name, tensor in stand_in.state_dict().items()
        if name not in written or not np.array_equal(written[name], tensor.numpy())
    ]
    return model, lost


def _fill(model: onnx.ModelProto, product: Product) -> None:
    """Put the real weights in place of the stand-ins, under the network's own names."""
    state = product.state_dict()
    renamed: dict[str, str] = {}
    for number, tensor in enumerate(model.graph.initializer):
        old = tensor.name
        if old in state:
            new = {"scale": SCALE, "shift": SHIFT}.get(old, old.removeprefix("network."))
            tensor.CopyFrom(numpy_helper.from_array(state[old].numpy(), new))
        else:
            new = f"constant.{number}"
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), new))
        renamed[old] = new
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
