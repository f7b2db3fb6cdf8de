"""A model repository for NVIDIA's Triton Inference Server, one model a product.

    triton/NAME_fp32/config.pbtxt
    triton/NAME_fp32/labels.txt
    triton/NAME_fp32/1/model.onnx

The fields are those of `ModelConfig` in Triton's `model_config.proto`.
"""

from collections.abc import Sequence
from pathlib import Path

from tinygrow.deploy.contract import INPUT, OUTPUT, Contract
from tinygrow.deploy.published import Published
from tinygrow.files import write_bytes, write_text
from tinygrow.package.render import render

MAX_BATCH = 64
QUEUE_DELAY_MICROSECONDS = 1000
"""How long a request may wait for others to share a batch with."""


def write_triton(folder: Path, products: Sequence[Published], contract: Contract) -> None:
    """Write the repository.

    Args:
        folder: of the repository; made.
        products: each becomes a model of its own.
        contract: of all of them.
    """
    for product in products:
        name = f"{contract.model}_{product.precision}"
        write_text(folder / name / "config.pbtxt", config(name, product.precision, contract))
        write_text(folder / name / "labels.txt", labels(contract))
        write_bytes(folder / name / "1" / "model.onnx", product.path.read_bytes())


def config(name: str, precision: str, contract: Contract) -> str:
    """Return `config.pbtxt` of one model.

    With a batch size above 0 Triton adds the batch's dimension itself, so `dims` leaves it out.
    int8 is made for CPUs, with unsigned activations, and runs there.
    """
    return render(
        "config.pbtxt.j2",
        name=name,
        input=INPUT,
        output=OUTPUT,
        shape=contract.shape,
        classes=contract.classes,
        max_batch=MAX_BATCH,
        delay=QUEUE_DELAY_MICROSECONDS,
        kind="KIND_CPU" if precision == "int8" else "KIND_AUTO",
    )


def labels(contract: Contract) -> str:
    """Return one class a line, in the order of the logits; each name on one line."""
    return "".join(" ".join(name.split()) + "\n" for name in contract.classes)
