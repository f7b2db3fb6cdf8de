"""What is timed: products by ONNX Runtime, the trained network by PyTorch.

All take uint8 images in the CPU's memory and leave float32 logits there, normalisation included.
"""

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tinygrow.benchmark.measure import Call, Contender
from tinygrow.data.prepared import DataCard
from tinygrow.deploy.contract import INPUT, OUTPUT
from tinygrow.deploy.sessions import first_line, open_session, provider_of
from tinygrow.errors import TinygrowError
from tinygrow.products.export import Product

EAGER = "eager"
CHANNELS_LAST = "eager, channels-last"
COMPILED = "compiled"


def onnx_contenders(
    products: Sequence[tuple[str, Path]], providers: Sequence[str], threads: int
) -> tuple[list[Contender], list[str]]:
    """Return one contender a product and provider, and a line on each that does not run.

    Args:
        products: precision and .onnx file.
        providers: short names, such as `cpu`.
        threads: of the CPU.
    """
    contenders, absent = [], []
    for provider in providers:
        for precision, path in products:
            try:
                contenders.append(_onnx(precision, path, provider, threads))
            except TinygrowError as error:
                absent.append(f"onnxruntime {precision} on {provider}: {error}")
    return contenders, absent


def torch_contenders(
    network: nn.Module, card: DataCard, device: str, *, compiled: bool, note: str = ""
) -> list[Contender]:
    """Return PyTorch's contenders: eager in both layouts of memory, and `torch.compile`.

    Args:
        network: maps normalised float32 images to logits.
        card: mean and standard deviation of the channels.
        device: `cpu` or `cuda`.
        compiled: with `torch.compile`, anew for each batch size.
        note: added to the name of each.
    """
    variants = [EAGER, CHANNELS_LAST, *([COMPILED] if compiled else [])]
    return [_torch(network, card, device, variant, note) for variant in variants]


def _onnx(precision: str, path: Path, provider: str, threads: int) -> Contender:
    session = open_session(path, provider, threads=threads)

    def prepare(images: NDArray[np.uint8]) -> Call:
        return lambda: session.run([OUTPUT], {INPUT: images})

    return Contender(
        engine="onnxruntime", variant=precision, device=provider_of(session), prepare=prepare
    )


def _torch(network: nn.Module, card: DataCard, device: str, variant: str, note: str) -> Contender:
    layout = torch.channels_last if variant == CHANNELS_LAST else torch.contiguous_format
    # The type stubs of `Module.to` know no memory format alone.
    model = Product(copy.deepcopy(network), card).eval().to(device, memory_format=layout)  # type: ignore[call-overload]

    def prepare(images: NDArray[np.uint8]) -> Call:
        @torch.inference_mode()
        def call() -> NDArray[np.float32]:
            batch = torch.from_numpy(images).to(device).contiguous(memory_format=layout)
            logits: NDArray[np.float32] = run(batch).cpu().numpy()
            return logits

        run = model
        try:
            if variant == COMPILED:
                torch._dynamo.reset()
                run = torch.compile(model, dynamic=False)
            call()
        # What inductor lacks, such as a compiler of C++, it says by exceptions of many kinds.
        except Exception as error:
            raise TinygrowError(f"PyTorch cannot run it {variant}: {first_line(error)}") from error
        return call

    name = f"{variant}, {note}" if note else variant
    return Contender(engine="pytorch", variant=name, device=device, prepare=prepare)
