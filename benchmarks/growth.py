"""Compare the statistics and the solver of growth with gromo's, both sides in one run.

`python -m benchmarks.growth` takes the four stages of ResNet-18 (hidden width at a quarter) and the
full and the restricted convolution of gromo. What is counted where:

- statistics, ours: S1, M, then S, N, each with a forward and a backward pass of its own;
- statistics, gromo's: one forward and backward pass and `update_computation`, without the gradient
  covariance, which this method does not use; its mask of the map is made before;
- best update (a solve): ours `best_update`; gromo's `compute_optimal_delta` and its `tensor_n`;
- neurons (a solve): ours `optimal_neurons`, gromo's `compute_optimal_added_parameters`, K neurons;
- peak extra memory: of all but the neurons, in a process of its own (GPU: allocated memory);
- agreement: S relative to its norm; N under our best update relative to N with nothing projected
  out, as the projected N is rounding where the update fits every image; on the synthetic full-rank
  problem alpha^T omega relative to its norm. The restricted convolution solves a smaller problem.

The synthetic problems are made of correlated Gaussians (S with a condition number near 1e3) and a
cross moment of geometrically falling strength under noise; the rank-deficient one has 1,024 rows.
The last line is one JSON object; the exit status is 1 where a target of a measured quantity does
not hold. Targets of time and memory are those of a CPU.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.rival import CUT, SIDES, Found, Ours, Scene, Shape, Theirs, peak_memory, side
from benchmarks.timing import Timer, figures, spread, surroundings
from tinygrow.errors import TinygrowError
from tinygrow.files import write_json
from tinygrow.training.device import pick_device

OURS, RESTRICTED, FULL = SIDES
STAGES = ("64x32x32", "128x16x16", "256x8x8", "512x4x4")
# At least: gromo's seconds over ours. At most: our bytes over gromo's, and errors.
STATISTICS_SPEEDUP = {"64x32x32": 30.0, "128x16x16": 30.0, "256x8x8": 15.0, "512x4x4": 15.0}
RESTRICTED_SPEEDUP = 1.0
MEMORY_SHARE = 0.25
AGREEMENT = 1e-3
SOLVE_SIZE = 4609
SOLVE_SPEEDUP = {"full rank": 10.0, "rank-deficient": 3.0}
DEFICIENT_ROWS = 1024
STATISTICS = {OURS: ("update moments", "neuron moments")}

Result = dict[str, Any]


def stage(shape: Shape, device: torch.device, options: argparse.Namespace) -> Result:
    """Measure every side on one stage."""
    scene = Scene(shape, options.images, device)
    sides = {name: side(name, scene) for name in SIDES}
    timers = {name: Timer(device) for name in SIDES}
    found: dict[str, Found] = {}
    for chosen in (side(name, Scene(Shape(8, 6, 6), 4, device)) for name in SIDES):
        chosen.neurons(chosen.measure(Timer(device)), 2)
    sides[OURS].measure(Timer(device))
    counts = {OURS: options.repeats, RESTRICTED: options.repeats, FULL: options.rival_repeats}
    for repeat in range(max(counts.values())):
        for name in (name for name in SIDES if repeat < counts[name]):
            _progress(f"{device}, {shape}: {name}, statistics {repeat + 1} of {counts[name]}")
            found[name] = sides[name].measure(timers[name])
    for repeat in range(options.stage_solves):
        for name in SIDES:
            _progress(f"{device}, {shape}: {name}, neurons {repeat + 1}")
            with timers[name].part("neurons"):
                sides[name].neurons(found[name], min(options.neurons, shape.hidden))
    agreement = _agreement(sides[OURS], sides[FULL], found)  # type: ignore[arg-type]
    del sides, found
    memory, skipped = {}, {}
    for name in SIDES:
        _progress(f"{device}, {shape}: {name}, memory")
        size, reason = peak_memory(name, shape, options.images, device)
        memory[name] = None if reason else size
        if reason:
            skipped[name] = f"SKIPPED: {reason}"
    seconds = {name: _seconds(name, timers[name]) for name in SIDES}
    return {
        "shape": str(shape),
        "device": device.type,
        "seconds": {n: {k: figures(v) for k, v in parts.items()} for n, parts in seconds.items()},
        "spread": {n: {k: spread(v) for k, v in parts.items()} for n, parts in seconds.items()},
        "peak_extra_bytes": memory,
        "skipped": skipped,
        "ratios": _stage_ratios(seconds, memory),
        "agreement": agreement,
    }


def synthetic(size: int, rows: int, seed: int = 0) -> Found:
    """Return moments S (size, size) and N (size, size - 1) of so many correlated rows."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    # A condition of 30 in the population; the sampling of twice `size` rows does the rest.
    X = draw(rows, size) * torch.logspace(0, -0.75, size, dtype=torch.float64)
    for _ in range(3):
        v = torch.nn.functional.normalize(draw(size), dim=0)
        X -= 2 * torch.outer(X @ v, v)
    outputs, strong = size - 1, min(96, size // 2)
    S = X.T @ X / rows
    strength = 100 * 0.9 ** torch.arange(strong, dtype=torch.float64)
    left, right = draw(size, strong) / size**0.5, draw(strong, outputs) / outputs**0.5
    N = X.T @ draw(rows, outputs) / rows + S @ (left * strength) @ right
    return Found(0.5 * (S + S.T), N, torch.empty(0))


def solve(kind: str, device: torch.device, options: argparse.Namespace) -> Result:
    """Time both solvers on one synthetic problem, each in the precision it works in."""
    size = options.solve_size
    few = max(2, min(DEFICIENT_ROWS, size // 4))
    moments = synthetic(size, 2 * size if kind == "full rank" else few)
    ours = Found(moments.S.to(device), moments.N.to(device), moments.delta)
    theirs = Found(ours.S.float(), ours.N.float(), moments.delta)
    timer = Timer(device)
    small = synthetic(33, 66)
    Ours.neurons(Found(small.S.to(device), small.N.to(device), small.delta), 2)
    for repeat in range(options.solve_repeats):
        _progress(f"{device}: solve at p = {size}, {kind}, {repeat + 1}")
        with timer.part(OURS):
            mine = Ours.neurons(ours, options.neurons)
        with timer.part("gromo"):
            other = Theirs.neurons(theirs, options.neurons)
    # Gromo cuts eigenvalues at an absolute size: below full rank it solves another problem.
    error = _error(other, mine) if kind == "full rank" else None
    return {
        "problem": kind,
        "size": size,
        "device": device.type,
        "seconds": {name: figures(values) for name, values in timer.seconds.items()},
        "spread": {name: spread(values) for name, values in timer.seconds.items()},
        "ratio": _digits(median(timer.seconds["gromo"]) / median(timer.seconds[OURS])),
        "agreement": error,
    }


def judge(stages: Sequence[Result], solves: Sequence[Result]) -> list[Result]:
    """Return every target of what was measured, with `holds`."""
    targets: list[Result] = []

    def add(name: str, value: float | None, least: float | None, most: float | None) -> None:
        if value is None or (least is None and most is None):
            return
        holds = (least is None or value >= least) and (most is None or value <= most)
        limit = {"at_least": least} if least is not None else {"at_most": most}
        targets.append({"target": name, "value": value, **limit, "holds": holds})

    for one in stages:
        name, ratios = f"{one['device']} {one['shape']}", one["ratios"]
        if one["device"] == "cpu" and one["shape"] in STATISTICS_SPEEDUP:
            least = STATISTICS_SPEEDUP[one["shape"]]
            add(f"{name}: statistics, speed-up on full", ratios["statistics_full"], least, None)
            value = ratios["statistics_restricted"]
            add(f"{name}: statistics, speed-up on restricted", value, RESTRICTED_SPEEDUP, None)
            add(f"{name}: memory, share of full", ratios["memory_full"], None, MEMORY_SHARE)
        for key, error in one["agreement"].items():
            add(f"{name}: error of {key}", error, None, AGREEMENT)
    for one in solves:
        name = f"{one['device']} solve at p = {one['size']}, {one['problem']}"
        if one["device"] == "cpu" and one["size"] == SOLVE_SIZE:
            add(f"{name}: speed-up", one["ratio"], SOLVE_SPEEDUP[one["problem"]], None)
        add(f"{name}: error of the neurons", one["agreement"], None, AGREEMENT)
    return targets


def table(stages: Sequence[Result], solves: Sequence[Result], targets: Sequence[Result]) -> str:
    """Return all figures as text: a row a side and shape, a group a device."""
    rows = [["device", "problem", "side", "statistics, s", "best update, s", "neurons, s", "MiB"]]
    for one in stages:
        for name in SIDES:
            cells, size = one["spread"][name], one["peak_extra_bytes"][name]
            peak = one["skipped"].get(name, "") if size is None else f"{size / 2**20:.1f}"
            parts = [cells.get(part, "-") for part in ("statistics", "best update", "neurons")]
            rows.append([one["device"], one["shape"], name, *parts, peak])
    for one in solves:
        for name, cell in one["spread"].items():
            head = f"p = {one['size']}, {one['problem']}"
            rows.append([one["device"], head, name, "-", "-", cell, "-"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    lines.insert(1, "-" * len(max(lines, key=len)))
    lines.append("")
    for one in targets:
        least = "at_least" in one
        limit = f"at least {one['at_least']:g}" if least else f"at most {one['at_most']:g}"
        word = "holds" if one["holds"] else "DOES NOT HOLD"
        lines.append(f"{one['target']}: {one['value']:.3g} ({limit}): {word}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--shapes", nargs="*", default=list(STAGES), metavar="CxHxW", help="stages; none: no stage")
    add("--images", type=int, default=64, help="in the one mini-batch")
    add("--neurons", type=int, default=24, help="K")
    add("--repeats", type=int, default=5, help="of our statistics and gromo's restricted ones")
    add("--rival-repeats", type=int, default=5, help="of gromo's full statistics")
    add("--stage-solves", type=int, default=1, help="of each stage's neurons, by each side")
    add("--solve-repeats", type=int, default=5, help="of the synthetic solves; 0: none")
    add("--solve-size", type=int, default=SOLVE_SIZE, help="p of the synthetic solve; 0: none")
    add("--device", nargs="+", default=None, help="default: cpu, and cuda where there is one")
    add("--output", type=Path, default=None, help="JSON file for the result")
    chosen = parser.parse_args(arguments)
    for key, least in (("images", 2), ("neurons", 1), ("repeats", 1), ("rival_repeats", 1)):
        if getattr(chosen, key) < least:
            parser.error(f"--{key.replace('_', '-')} must be at least {least}")
    if chosen.solve_repeats < 0 or (chosen.solve_size and chosen.solve_size < 16):
        parser.error("--solve-repeats must be at least 0 and --solve-size 0 or at least 16")
    names = chosen.device or (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    try:
        shapes = [Shape.parse(text) for text in chosen.shapes]
        devices = [pick_device(name) for name in names]
        around = [surroundings(device) for device in devices]
        stages = [stage(shape, device, chosen) for device in devices for shape in shapes]
        kinds = SOLVE_SPEEDUP if chosen.solve_size and chosen.solve_repeats else ()
        solves = [solve(kind, device, chosen) for device in devices for kind in kinds]
        targets = judge(stages, solves)
        result = {
            "benchmark": "growth",
            "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in vars(chosen).items()},
            "relative_cut": CUT,
            "surroundings": around,
            "stages": stages,
            "solves": solves,
            "targets": targets,
            "holds": all(target["holds"] for target in targets),
        }
        if chosen.output:
            write_json(chosen.output, result)
    except TinygrowError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    for one in around:
        print(", ".join(f"{key} {value}" for key, value in one.items()))
    print("Seconds are median (smallest to largest); MiB are peak extra memory.\n")
    print(table(stages, solves, targets), end="\n\n")
    print(json.dumps(result))
    return 0 if result["holds"] else 1


def _agreement(ours: Ours, theirs: Theirs, found: dict[str, Found]) -> dict[str, float]:
    mine, full = found[OURS], found[FULL]
    scale = float(ours.unprojected().norm())
    gap = theirs.projected_by(mine.delta).double() - mine.N
    return {"S": _error(full.S, mine.S), "N": _digits(float(gap.norm()) / scale)}


def _seconds(name: str, timer: Timer) -> dict[str, list[float]]:
    parts = [timer.seconds[part] for part in STATISTICS.get(name, ("statistics",))]
    summed = {"statistics": [sum(times) for times in zip(*parts, strict=True)]}
    solved = ("best update", "neurons")
    return summed | {part: timer.seconds[part] for part in solved if part in timer.seconds}


def _stage_ratios(
    seconds: dict[str, dict[str, list[float]]], memory: dict[str, int | None]
) -> dict[str, float | None]:
    """Return gromo's seconds over ours and our bytes over gromo's."""
    ratios: dict[str, float | None] = {}
    for rival, key in ((FULL, "full"), (RESTRICTED, "restricted")):
        for part, values in seconds[OURS].items():
            ratio = median(seconds[rival][part]) / median(values)
            ratios[f"{part.replace(' ', '_')}_{key}"] = _digits(ratio)
        mine, other = memory[OURS], memory[rival]
        ratios[f"memory_{key}"] = _digits(mine / other) if mine is not None and other else None
    return ratios


def _error(other: torch.Tensor, ours: torch.Tensor) -> float:
    return _digits(float((other.double() - ours).norm() / ours.norm()))


def _digits(value: float) -> float:
    return float(f"{value:.6g}")


def _progress(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
