"""Our side and gromo's side of one growth problem, and the memory each needs.

The problem: conv3x3 (C to C/4) - ReLU - conv3x3 (C/4 to C) - mean over positions - linear head of
10 classes with cross-entropy, the same float32 weights and images on both sides. Both take the
sum of the images' losses, so their moments are the same numbers.
"""

import re
import sys
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.timing import Timer
from tinygrow.errors import TinygrowError
from tinygrow.growth.bottleneck import best_update, optimal_neurons
from tinygrow.growth.sites import Site
from tinygrow.growth.statistics import neuron_moments, update_moments
from tinygrow.settings.growth import StatisticsSettings

CLASSES = 10
CUT = 1e-6
SIDES = ("tinygrow", "gromo restricted", "gromo full")
SITE = Site(depth=2, index=0, first="first", norm=None, second="second")


@dataclass(frozen=True, slots=True)
class Shape:
    """A stage: channels (a multiple of 4) and the map's height and width."""

    channels: int
    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """Return the shape written as CxHxW.

        Raises:
            TinygrowError: it is not one, or the channels are no multiple of 4.
        """
        if not re.fullmatch(r"[1-9]\d*x[1-9]\d*x[1-9]\d*", text):
            raise TinygrowError(f"shape is {text!r}; write it as 64x32x32")
        shape = cls(*map(int, text.split("x")))
        if shape.channels % 4:
            raise TinygrowError(f"shape is {text!r}; its channels must be a multiple of 4")
        return shape

    def __str__(self) -> str:
        return f"{self.channels}x{self.height}x{self.width}"

    @property
    def hidden(self) -> int:
        """Width between the two convolutions."""
        return self.channels // 4


@dataclass(frozen=True, slots=True)
class Found:
    """What one side measured and solved.

    Attributes:
        S: moment of what the first convolution reads.
        N: cross moment with the projected desired update, of the side's own best update.
        delta: that best update, bias last.
    """

    S: torch.Tensor
    N: torch.Tensor
    delta: torch.Tensor


class Pair(nn.Module):
    """The network of our side."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.first = nn.Conv2d(shape.channels, shape.hidden, 3, padding=1)
        self.second = nn.Conv2d(shape.hidden, shape.channels, 3, padding=1)
        self.head = nn.Linear(shape.channels, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, 10) of images (B, C, H, W)."""
        a: torch.Tensor = self.second(F.relu(self.first(x)))
        return self.head(a.mean((2, 3)))


class Scene:
    """One problem: weights, images and labels, the same for every side.

    Args:
        shape: of the stage.
        images: in the one mini-batch.
        device: where all runs.
    """

    def __init__(self, shape: Shape, images: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.shape, self.device = shape, device
        self.network = Pair(shape).to(device)
        generator = torch.Generator().manual_seed(1)
        size = (images, shape.channels, shape.height, shape.width)
        self.x = torch.randn(size, generator=generator).to(device)
        self.y = torch.randint(CLASSES, (images,), generator=generator).to(device)


class Ours:
    """Statistics and solve of this package, in the memory format of the trainer."""

    def __init__(self, scene: Scene) -> None:
        self.network = Pair(scene.shape).to(scene.device)
        self.network.load_state_dict(scene.network.state_dict())
        self.network.to(memory_format=torch.channels_last)
        self.batches = [(scene.x.to(memory_format=torch.channels_last), scene.y)]
        self.settings = StatisticsSettings(batch_size=max(2, len(scene.y)))

    def measure(self, timer: Timer) -> Found:
        """Measure the moments, and the best update between them."""
        with timer.part("update moments"):
            update = update_moments(self.network, SITE, self.batches, self.settings)
        with timer.part("best update"):
            delta = best_update(update.S1, update.M, CUT)
        with timer.part("neuron moments"):
            pair = neuron_moments(self.network, SITE, self.batches, delta, self.settings)
        return Found(pair.S, pair.N, delta)

    def unprojected(self) -> torch.Tensor:
        """Return N with nothing projected out."""
        return neuron_moments(self.network, SITE, self.batches, None, self.settings, gram=False).N

    @staticmethod
    def neurons(found: Found, count: int) -> torch.Tensor:
        """Return alpha^T omega (p, q * T)."""
        neurons = optimal_neurons(found.S, found.N, count, CUT)
        return neurons.alpha.T @ neurons.omega


class Theirs:
    """Statistics and solve of gromo.

    Args:
        scene: the problem.
        kind: `full` or `restricted`: which of its convolutions reads the new neurons.
    """

    def __init__(self, scene: Scene, kind: str) -> None:
        conv2d, shape = _gromo("gromo.modules.conv2d_growing_module"), scene.shape
        module = getattr(conv2d, f"{kind.capitalize()}Conv2dGrowingModule")
        common = {
            "padding": 1,
            "input_size": (shape.height, shape.width),
            "device": scene.device,
        }
        self.first = module(
            shape.channels, shape.hidden, 3, post_layer_function=nn.ReLU(), **common
        )
        self.second = module(shape.hidden, shape.channels, 3, previous_module=self.first, **common)
        self.first.layer.load_state_dict(scene.network.first.state_dict())
        self.second.layer.load_state_dict(scene.network.second.state_dict())
        self.head, self.x, self.y = scene.network.head, scene.x, scene.y
        if kind == "full":
            _ = self.second.mask_tensor_t  # Made once and kept by gromo: no part of a measurement.

    def measure(self, timer: Timer) -> Found:
        """Measure the moments and solve for the best update."""
        with quiet():
            self.second.init_computation()
            with timer.part("statistics"):
                logits = self.head(self.second(self.first(self.x)).mean((2, 3)))
                F.cross_entropy(logits, self.y, reduction="sum").backward()
                self.second.update_computation(update_covariance_loss_gradient=False)
            with timer.part("best update"):
                self.second.compute_optimal_delta()
                N = self.second.tensor_n
        return Found(self.second.tensor_s_growth(), N, self.second.delta_raw)

    def projected_by(self, delta: torch.Tensor) -> torch.Tensor:
        """Return the N of the last measurement for another best update, of our sign."""
        # Theirs is made of the gradient, ours of its opposite.
        self.second.delta_raw = -delta.to(self.x)
        found: torch.Tensor = self.second.tensor_n
        return found

    @staticmethod
    def neurons(found: Found, count: int) -> torch.Tensor:
        """Return alpha^T omega (p, q * T)."""
        with quiet():
            alpha, omega, _ = _gromo("gromo.utils.tools").compute_optimal_added_parameters(
                found.S, found.N, statistical_threshold=0.0, maximum_added_neurons=count
            )
        product: torch.Tensor = alpha.T @ omega.T
        return product


def side(name: str, scene: Scene) -> Ours | Theirs:
    """Return a side by its name in `SIDES`."""
    return Ours(scene) if name == SIDES[0] else Theirs(scene, name.split()[1])


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings of gromo's solver about singular moments out of the figures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def peak_memory(name: str, shape: Shape, images: int, device: torch.device) -> tuple[int, str]:
    """Return the bytes that one measurement adds at its peak, and why there are none (then -1).

    On the CPU it is the resident memory of a process of its own; on a GPU, allocated memory.
    """
    if device.type == "cuda":
        return _peak_allocated(name, shape, images, device), ""
    if not sys.platform.startswith("linux") or not Path("/proc/self/clear_refs").exists():
        return -1, "no /proc/self/clear_refs on this system"
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(
                _peak_resident, name, shape, images, torch.get_num_threads()
            ).result(), ""
        except BrokenProcessPool:
            return -1, "the process was killed, for its memory most likely"
        except (OSError, KeyError) as error:
            return -1, f"/proc does not tell: {error}"


def _peak_resident(name: str, shape: Shape, images: int, threads: int) -> int:
    torch.set_num_threads(threads)
    device = torch.device("cpu")
    # What libraries allocate once is no part of the measurement.
    side(name, Scene(Shape(8, 6, 6), 4, device)).measure(Timer(device))
    chosen = side(name, Scene(shape, images, device))
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    chosen.measure(Timer(device))
    return max(0, _status("VmHWM") - before)


def _peak_allocated(name: str, shape: Shape, images: int, device: torch.device) -> int:
    chosen = side(name, Scene(shape, images, device))
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    chosen.measure(Timer(device))
    return torch.cuda.max_memory_allocated(device) - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return int(values[key].split()[0]) * 1024


def _gromo(module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise TinygrowError(f"gromo cannot be imported: {error}; install gromo==0.1.0") from None
