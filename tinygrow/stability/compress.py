"""From a finished network to a folded one without what provably never matters."""

import copy
from dataclasses import dataclass, replace

import torch
from torch import nn

from tinygrow.architecture import Architecture
from tinygrow.checkpoint import Checkpoint
from tinygrow.data.prepared import DataCard
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer
from tinygrow.products.fold import fold_batch_norm
from tinygrow.settings.compress import CompressSettings, Rewrites
from tinygrow.stability.found import Stability, Witnesses
from tinygrow.stability.program import program_of
from tinygrow.stability.rewrite import Rewritten, rewrite
from tinygrow.stability.search import find_stable

_TRIED = 16  # images that every rewriting is tried on
_TOLERANCE = 1e-10  # of the logits' scale, in float64


@dataclass(frozen=True, slots=True)
class Compressed:
    """What compression made of a network.

    Attributes:
        folded: the network before, float32, on the CPU.
        network: the one after, float32: its weights are rounded once.
        architecture: rebuilds it.
        stability: what was found of the network before.
        rewritten: how it became the one after.
        notes: in words, what was left out, and why.
    """

    folded: nn.Module
    network: nn.Module
    architecture: Architecture
    stability: Stability
    rewritten: Rewritten
    notes: tuple[str, ...]


def compress(
    source: Checkpoint,
    card: DataCard,
    images: torch.Tensor,
    settings: CompressSettings,
    observer: Observer,
) -> Compressed:
    """Fold a network, find what is stable in it, and take out what that makes superfluous.

    A network that nothing can be proved of comes back folded, and the notes say why.

    Args:
        source: the trained network; not changed.
        card: of its data.
        images: training images, uint8 (N, C, H, W), that may refute; the first of them are taken.
        settings: of compression.
        observer: told of the progress.
    """
    folded = fold_batch_norm(source.network)
    notes: list[str] = []
    try:
        program = program_of(folded, card)
        stability = find_stable(program, images, settings.stability, observer)
    except TinygrowError as error:
        notes.append(f"nothing is proved: {error}")
        stability = Stability((), {}, (), Witnesses(torch.zeros(0, *card.shape)))
        settings = replace(settings, rewrites="none")
    rewritten = _rewritten(folded, card, stability, settings, notes)
    return _compressed(folded, source.architecture, stability, rewritten, notes)


def left_whole(
    done: Compressed, card: DataCard, settings: CompressSettings, reason: str
) -> Compressed:
    """Return a compression that claims nothing and takes nothing out.

    Args:
        done: the one that is given up.
        card: of the data.
        settings: of compression.
        reason: why, in words.
    """
    stability = replace(done.stability, layers=(), lines=(), slopes={})
    rewritten = rewrite(done.folded, card, stability, replace(settings, rewrites="none"))
    return _compressed(done.folded, done.architecture, stability, rewritten, [reason])


def _compressed(
    folded: nn.Module,
    architecture: Architecture,
    stability: Stability,
    rewritten: Rewritten,
    notes: list[str],
) -> Compressed:
    return Compressed(
        folded=folded,
        network=copy.deepcopy(rewritten.network).float().eval().requires_grad_(False),
        architecture=replace(architecture, compressed=rewritten.structure),
        stability=stability,
        rewritten=rewritten,
        notes=(*stability.notes, *rewritten.notes, *notes),
    )


def _rewritten(
    folded: nn.Module,
    card: DataCard,
    stability: Stability,
    settings: CompressSettings,
    notes: list[str],
) -> Rewritten:
    """Rewrite the network, or less of it where the result is not the same on some images.

    The user's own code may do with a value what its trace does not show, such as change it in
    place.
    """
    ways: list[Rewrites] = ["all", "deletions", "none"]
    for rewrites in ways[ways.index(settings.rewrites) : -1]:
        try:
            rewritten = rewrite(folded, card, stability, replace(settings, rewrites=rewrites))
        except TinygrowError as error:
            notes.append(f"the rewrites {rewrites!r} were not made: {error}")
            continue
        if not rewritten.steps or _same(folded, rewritten.network, card):
            return rewritten
        notes.append(
            f"with the rewrites {rewrites!r} the network computes something else: it does more than"
            " its trace shows; they were not made"
        )
    return rewrite(folded, card, stability, replace(settings, rewrites="none"))


@torch.no_grad()
def _same(before: nn.Module, after: nn.Module, card: DataCard) -> bool:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand((_TRIED, *card.shape), generator=generator, dtype=torch.float64)
    mean, std = (
        torch.tensor(v, dtype=torch.float64).reshape(-1, 1, 1) for v in (card.mean, card.std)
    )
    images = (images - mean) / std
    right = copy.deepcopy(before).double()(images)
    found = copy.deepcopy(after)(images)
    scale = float(right.abs().max()) or 1.0
    return bool((found - right).abs().max() <= _TOLERANCE * scale)
