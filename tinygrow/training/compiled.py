"""A network compiled for training steps of one shape; as it is, where that cannot be.

The weights stay those of the network itself, under their own names: optimiser, moving average,
evaluation and saved states know nothing of this. PyTorch's compiler is not imported before the
first step needs it.
"""

import logging
import os
import shutil
from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

Choice = Literal["off", "on", "auto"]


class CompiledNetwork(nn.Module):
    """Calls `network` compiled for each shape of batches; as it is, if it cannot be compiled.

    Args:
        network: whose parameters and buffers are used where they are.
        say: is told, in one line, if it cannot be compiled.
    """

    def __init__(self, network: nn.Module, say: Callable[[str], None]) -> None:
        super().__init__()
        self.network = network
        # In a tuple, lest its parameters count a second time.
        self._called: tuple[Callable[[torch.Tensor], torch.Tensor]] = (
            torch.compile(network, dynamic=False),
        )
        self._say = say
        self._succeeded = False

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images as the network does."""
        if self._succeeded:
            return self._called[0](images)
        try:
            logits = self._called[0](images)
        except Exception as error:
            if not _is_of_the_compiler(error):
                raise
            self._say(
                f"training is not compiled: {_first_line(error)}; set compile to off if that is to"
                " stay so"
            )
            self._called = (self.network,)
            logits = self.network(images)
        self._succeeded = True
        return logits


def compiled(
    network: nn.Module,
    device: torch.device,
    choice: Choice,
    say: Callable[[str], None] = lambda _: None,
) -> nn.Module:
    """Return what to call in training steps: `network` itself, or compiled at its first call.

    `auto` compiles on a GPU. On a CPU a compilation takes half a minute or more, and only narrow
    networks train much faster for it (measured: benchmarks/README.md, `training`).

    Args:
        network: on `device`; keeps its shape from now on.
        device: where it is trained.
        choice: of the settings.
        say: is told if compilation is wanted, but not possible.
    """
    if choice == "off" or (choice == "auto" and device.type != "cuda"):
        return network
    if not has_compiler():
        say(
            "training is not compiled: no C++ compiler is found (g++, clang++, or what CXX names);"
            " install one, or set compile to off"
        )
        return network
    # It warns of a CUDA toolkit that nothing here needs, where there is no GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    return CompiledNetwork(network, say)


def has_compiler() -> bool:
    """Say whether there is a C++ compiler, which PyTorch's compiler needs on every device."""
    chosen = os.environ.get("CXX")
    return any(shutil.which(name) for name in ([chosen] if chosen else ["g++", "clang++", "c++"]))


def _is_of_the_compiler(error: Exception) -> bool:
    """Tell failures to compile from those of the network itself and of the device."""
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    return isinstance(error, TorchDynamoException | CppCompileError | InvalidCxxCompiler)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0].rstrip(".:")
