"""Overrides of `params.yaml` that make long work short, and how they are typed."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipeline.params import Params
from tinygrow.settings.training import FinetuneSettings
from tinygrow.training.estimate import FinetuneEstimate, duration

TOO_LONG = 6 * 3600.0
"""Seconds on a CPU from which on overrides are named."""

SHORT = 3600.0
"""Seconds that overrides aim at."""

Overrides = dict[str, Any]
"""New values by their keys, joined by dots."""


def applied(values: Params, overrides: Overrides) -> Params:
    """Return the parameters with the overrides, whose keys must be there."""
    tree = values.tree
    for key, value in overrides.items():
        tree = _with(tree, key.split("."), value)
    return Params(tree, values.path, "")


def advise(values: Params, model: str, overrides: Overrides, seconds: float) -> str:
    """Return a line that says how the model is made with the overrides, and how long it takes.

    `dvc exp run -S` leaves a block that two models share through a YAML anchor as it is, without a
    word (DVC 3.67: it changes the block, then writes the other model's value back).
    """
    shared = _shared_blocks(values)
    if any(shared & _blocks_above(values, key) for key in overrides):
        changes = " ".join(f"{key}={value}" for key, value in overrides.items())
        line = (
            f"on this CPU try, in blocks of its own ({values.path} shares them between models, and"
            f" `dvc exp run -S` cannot change such blocks): {changes}"
        )
    else:
        line = f"on this CPU try: {command(overrides, model)}"
    return f"{line} (about {duration(seconds)})"


def command(overrides: Overrides, model: str) -> str:
    """Return what makes the model with the overrides."""
    changes = " ".join(f"-S {key}={value}" for key, value in overrides.items())
    return f"dvc exp run {changes} report@{model}"


def fewer_epochs(model: str, settings: FinetuneSettings, epochs: int) -> Overrides:
    """Return the overrides for at most `epochs` epochs of fine-tuning; none where they are few."""
    if settings.epochs <= epochs:
        return {}
    place = f"models.{model}.finetune"
    overrides: Overrides = {f"{place}.epochs": epochs}
    if settings.max_epochs:
        overrides[f"{place}.max_epochs"] = 0
    if settings.training.warmup_epochs > epochs / 5:
        overrides[f"{place}.training.warmup_epochs"] = epochs / 5
    return overrides


def advise_finetuning(values: Params, model: str, estimate: FinetuneEstimate) -> list[str]:
    """Return lines with overrides where fine-tuning takes too long on a CPU, or none.

    Args:
        values: of `params.yaml`.
        model: its name.
        estimate: of what is left of its fine-tuning.
    """
    if estimate.device != "cpu" or estimate.seconds <= TOO_LONG:
        return []
    an_epoch = estimate.seconds / estimate.epochs
    epochs = max(1, int(SHORT / an_epoch))
    settings = values.section(model, "finetune", FinetuneSettings)
    overrides = fewer_epochs(model, settings, epochs)
    if not overrides:  # one epoch alone takes too long
        return []
    return [
        "this fine-tuning is sized for a GPU",
        advise(values, model, overrides, epochs * an_epoch),
    ]


def _with(tree: Mapping[str, Any], keys: list[str], value: Any) -> dict[str, Any]:
    """Return the tree with one value changed; blocks that it shares are not."""
    first, *rest = keys
    return {**tree, first: _with(tree[first], rest, value) if rest else value}


def _shared_blocks(values: Params) -> set[int]:
    """Return the identities of the blocks that more than one key leads to."""
    seen: Counter[int] = Counter()

    def count(block: Any) -> None:
        if isinstance(block, Mapping):
            seen[id(block)] += 1
            for inner in block.values():
                count(inner)

    count(values.tree)
    return {block for block, times in seen.items() if times > 1}


def _blocks_above(values: Params, key: str) -> set[int]:
    """Return the identities of the blocks on the way to a value."""
    block: Any = values.tree
    found = set()
    for name in key.split(".")[:-1]:
        block = block[name]
        found.add(id(block))
    return found
