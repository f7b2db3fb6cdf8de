"""The solver's proofs against every pattern of a small network, one linear program each."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from torch import nn

from tests.stability.networks import card, dense, perceptron, residual, samples
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer
from tinygrow.settings.compress import StabilitySettings
from tinygrow.stability import solver
from tinygrow.stability.encoding import MARGIN, Candidate, Encoding, Rows
from tinygrow.stability.evaluate import evaluate
from tinygrow.stability.found import Stability
from tinygrow.stability.interval import Bounds, interval_bounds
from tinygrow.stability.isa import Asked, _bound, ask_at_once, ask_one_by_one
from tinygrow.stability.ledger import Ledger
from tinygrow.stability.program import Linear, Node, Program, program_of
from tinygrow.stability.search import find_stable

linprog = pytest.importorskip("scipy.optimize").linprog
needs_solver = pytest.mark.skipif(
    not solver.has_solver(), reason="highspy, the solver HiGHS, is not installed"
)
NONE = torch.empty(0, 1, 1, 1, dtype=torch.uint8)
TIE = 1e-6  # a unit whose extreme is as near to zero is a tie


def extremes(program: Program) -> dict[str, list[tuple[float, float]]]:
    """Return the least and the greatest pre-activation of each unit, by brute force.

    On each region of one pattern of the layers before, the network is linear.
    """
    layers = [node for node in program.nodes if isinstance(node, Linear)][:-1]
    box = program.input
    ends = list(
        zip(
            box.lower.repeat(box.shape[2]).tolist(),
            box.upper.repeat(box.shape[2]).tolist(),
            strict=True,
        )
    )
    found: dict[str, list[tuple[float, float]]] = {}
    for depth, layer in enumerate(layers):
        best = [(np.inf, -np.inf)] * len(layer.weight)
        for A, b, rows, limits in _regions(layers[:depth], len(ends)):
            empty = linprog(np.zeros(len(ends)), A_ub=rows, b_ub=limits, bounds=ends).status != 0
            if empty:
                continue
            W = layer.weight.double().numpy()
            for unit, (w, c) in enumerate(
                zip(W @ A, W @ b + layer.bias.double().numpy(), strict=True)
            ):
                for sign in (1.0, -1.0):
                    answer = linprog(sign * w, A_ub=rows, b_ub=limits, bounds=ends)
                    if answer.status == 0:
                        value = sign * answer.fun + c
                        low, high = best[unit]
                        best[unit] = (min(low, value), max(high, value))
        found[layer.name] = best
    return found


def _regions(layers: list[Linear], inputs: int) -> Iterator[tuple[np.ndarray, ...]]:
    """Give, for each pattern, the map before a layer and the inequalities of the region."""
    widths = [len(layer.weight) for layer in layers]
    for pattern in itertools.product((0.0, 1.0), repeat=sum(widths)):
        A, b = np.eye(inputs), np.zeros(inputs)
        rows, limits = [], []
        states = iter(pattern)
        for layer in layers:
            W, c = layer.weight.double().numpy(), layer.bias.double().numpy()
            A, b = W @ A, W @ b + c
            on = np.array([next(states) for _ in range(len(W))])
            signs = np.where(on > 0, -1.0, 1.0)
            rows.append(signs[:, None] * A)
            limits.append(-signs * b)
            A, b = on[:, None] * A, on * b
        yield A, b, np.concatenate(rows) if rows else None, np.concatenate(limits) if rows else None


def _settings(milp: str, bounds: str = "crown") -> StabilitySettings:
    return StabilitySettings(
        milp=milp, bounds=bounds, data_images=0, pgd_steps=2, pgd_starts=2, milp_seconds=30
    )


def _to_one_side(network: nn.Sequential, mean: float) -> nn.Sequential:
    """Move every other unit just beyond what it reaches, where bounds alone do not see it."""
    program = dense(network, 3, mean)
    for node in program.layers()[1:]:
        value = evaluate(program, samples(program, 300), [node.name])[node.name]
        low, high = value.amin(0), value.amax(0)
        move = -(high + 0.05 * (high - low)).float()
        network[int(node.name)].bias.data[::2] += move[::2]
    return network


def compare(seed: int, milp: str, bounds: str) -> tuple[int, list[str]]:
    """Check one network; return its proofs by the solver, and its ties."""
    widths = [[4, 4], [3, 3, 3], [5, 4], [2, 3, 2]][seed % 4]
    mean = [0.0, 0.5, 1.0][seed % 3]
    network = perceptron(widths, 3, seed, shift=(seed % 5) / 3, zero_rows=seed % 2 == 1)
    program = dense(_to_one_side(network, mean), 3, mean)
    stability = find_stable(program, NONE, _settings(milp, bounds), Observer())
    truth = extremes(program)
    solved, ties = 0, []
    for found in stability.layers:
        for unit, (low, high) in enumerate(truth[found.layer]):
            right = {
                k for k, holds in (("inactive", high <= 1e-7), ("active", low >= -1e-7)) if holds
            }
            proofs = {p.kind: p for p in found.proved if p.index == unit}
            assert set(proofs) <= right, (seed, found.layer, unit, low, high)
            for kind, proof in proofs.items():
                solved += proof.method == "milp"
                reached = high if kind == "inactive" else low
                assert (
                    reached <= proof.bound + 1e-6
                    if kind == "inactive"
                    else reached >= proof.bound - 1e-6
                )
            if right and not proofs:
                assert abs(high) < TIE or abs(low) < TIE, (seed, found.layer, unit, low, high)
                ties.append(f"{seed}, {found.layer}, unit {unit}: from {low:.2g} to {high:.2g}")
            for index, end in ((found.refuted_inactive, high), (found.refuted_active, -low)):
                assert unit not in index or end > -1e-7
    _witnesses(program, stability)
    return solved, ties


def _witnesses(program: Program, stability: Stability) -> None:
    """Every refutation is seen again in its image, which is inside of the domain."""
    images = stability.witnesses.images
    if not len(images):
        assert not any(f.refuted_inactive or f.refuted_active for f in stability.layers)
        return
    box = program.input
    for low, high, flat in zip(
        box.lower, box.upper, images.double().flatten(2).unbind(1), strict=True
    ):
        assert (flat >= low).all() and (flat <= high).all()
    names = [found.layer for found in stability.layers]
    values = evaluate(program, images.double(), names)
    for found in stability.layers:
        value = values[found.layer].reshape(len(images), found.width, -1)
        for units, where, sign in (
            (found.refuted_inactive, stability.witnesses.above[found.layer], 1.0),
            (found.refuted_active, stability.witnesses.below[found.layer], -1.0),
        ):
            for unit in units:
                assert (sign * value[where[unit], unit]).max() > 0


@needs_solver
def test_isa_proves_nothing_that_brute_force_refutes() -> None:
    counts = [compare(seed, "isa", ("interval", "crown")[seed // 4 % 2]) for seed in range(6)]
    assert sum(solved for solved, _ in counts) > 4


@needs_solver
def test_programs_of_single_units_say_the_same() -> None:
    counts = [compare(seed, "per_neuron", "interval") for seed in range(4)]
    assert sum(solved for solved, _ in counts) > 4


@needs_solver
@pytest.mark.slow
def test_isa_on_two_hundred_networks(capsys: pytest.CaptureFixture[str]) -> None:
    counts = [
        compare(seed, "isa", ("interval", "crown")[seed // 4 % 2]) for seed in range(100, 300)
    ]
    solved = sum(number for number, _ in counts)
    ties = [tie for _, listed in counts for tie in listed]
    with capsys.disabled():
        print(
            f"\n{solved} units proved by ISA, {len(ties)} ties at zero left open:", *ties, sep="\n"
        )
    assert solved > 40


@needs_solver
def test_a_tie_at_zero_is_left_open_and_told() -> None:
    """y = relu(x) - relu(x) is 0 everywhere; intervals see neither side, nor does a margin."""
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 2)
    )
    network[1].weight.data = torch.ones(2, 1)
    network[1].bias.data.zero_()
    network[3].weight.data = torch.tensor([[1.0, -1.0]])
    network[3].bias.data.zero_()
    program = dense(network.eval().requires_grad_(False), 1)
    stability = find_stable(program, NONE, _settings("isa", "interval"), Observer())
    assert stability["3"].proved == ()
    assert stability["3"].unknown_inactive == stability["3"].unknown_active == (0,)
    assert any("rounding of zero" in note for note in stability.notes)


@needs_solver
def test_convolutions_are_encoded_as_they_are_computed() -> None:
    """A channel of the layer behind the residual sum, whose bound only the solver can reach."""
    network = (
        nn.Sequential(
            nn.Conv2d(1, 2, 2),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Conv2d(2, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2, 2),
        )
        .eval()
        .requires_grad_(False)
    )
    torch.manual_seed(5)
    for layer in (network[0], network[3]):
        layer.weight.data.normal_()
        layer.bias.data.zero_()
    program = program_of(network, card((1, 3, 3)))
    highest = evaluate(program, samples(program, 4000), ["3"])["3"].amax((0, 2, 3))
    wide = interval_bounds(program)["3"].upper.amax((1, 2))
    network[3].bias.data = -(highest + 0.4 * (wide - highest)).float()
    program = program_of(network, card((1, 3, 3)))
    assert interval_bounds(program)["3"].upper.amax() > 0
    stability = find_stable(program, NONE, _settings("isa", "interval"), Observer())
    methods = {p.index: p.method for p in stability["3"].proved}
    assert "milp" in methods.values()
    assert (evaluate(program, samples(program, 4000, 9), ["3"])["3"][:, list(methods)] <= 0).all()


@needs_solver
def test_no_time_proves_nothing() -> None:
    program = dense(perceptron([8, 8], 4, 3, shift=1.0), 4)
    bounds = interval_bounds(program)
    for ask in (ask_at_once, ask_one_by_one):
        ledger = Ledger(program, bounds)
        asked = ask(ledger, bounds, seconds=0.0)
        assert not any(ledger.proofs.values())
        assert any("time was up" in note for note in asked.notes)


def test_nothing_is_asked_where_nothing_is_open() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 2))
    network[1].weight.data.fill_(1.0)
    network[1].bias.data.fill_(9.0)
    program = dense(network.eval().requires_grad_(False), 2)
    bounds = interval_bounds(program)
    ledger = Ledger(program, bounds)
    ledger.settle_node(program["1"], bounds["1"], "interval")
    for ask in (ask_at_once, ask_one_by_one):
        assert ask(ledger, bounds, seconds=5.0).solves == 0


@needs_solver
def test_what_cannot_be_encoded_is_told_and_left_open() -> None:
    program = residual(0)
    bounds = interval_bounds(program)
    ledger = Ledger(program, bounds)
    asked = ask_at_once(ledger, bounds, seconds=0.5)
    assert any("dense is no sum" in note for note in asked.notes)
    assert not ledger.proofs["dense"]


@needs_solver
def test_an_interrupted_solver_gives_a_bound_that_holds() -> None:
    """Stopped at once, the bound must not be below what the network reaches."""
    program = dense(perceptron([12, 12], 6, 1, shift=0.3), 6)
    bounds = interval_bounds(program)
    layer = program.layers()[1]
    highest = evaluate(program, samples(program, 3000), [layer.name])[layer.name].amax(0)
    encoding = Encoding(program, bounds, layer)
    for unit in range(12):
        y = encoding.number(Candidate(layer.name, unit, unit, "inactive"))
        assert y is not None
        answer = solver.maximise(
            encoding.rows, list(zip(*y, strict=True)), seconds=0.02, enough=-1e9, hopeless=-1e9
        )
        assert answer.bound >= float(highest[unit]) - 1e-6


def test_without_the_solver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "highspy", None)
    assert not solver.has_solver()
    with pytest.raises(TinygrowError, match=r"tinygrow\[milp\]"):
        solver.maximise(Rows(), [], seconds=1, enough=1, hopeless=0)


@pytest.mark.parametrize("status", ["kTimeLimit", "kInterrupt", "kInfeasible", "kSolveError"])
def test_a_status_that_is_not_optimal_is_no_proof(
    monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """Whatever bound and point such an answer carries, as solvers are known to do."""
    statuses = SimpleNamespace(kOptimal=0, kInterrupt=1, kTimeLimit=2, kInfeasible=3, kSolveError=4)
    info = SimpleNamespace(
        mip_dual_bound=-5.0, objective_function_value=-5.0, primal_solution_status=2
    )
    fake = MagicMock(HighsModelStatus=statuses)
    run = fake.Highs.return_value
    run.getModelStatus.return_value = getattr(statuses, status)
    run.getInfo.return_value = info
    run.getSolution.return_value = SimpleNamespace(col_value=[0.0])
    monkeypatch.setattr(solver, "_highspy", lambda: fake)
    rows = Rows()
    rows.column(0.0, 1.0, binary=True)
    for relaxed in (False, True):
        answer = solver.maximise(
            rows, [(0, 1.0)], seconds=1, enough=1, hopeless=0.5, relaxed=relaxed
        )
        assert answer.bound == float("inf")
    run.getModelStatus.return_value = statuses.kOptimal
    assert solver.maximise(rows, [(0, 1.0)], seconds=1, enough=1, hopeless=0.5).bound == -5.0


@needs_solver
@pytest.mark.parametrize("ask", [ask_at_once, ask_one_by_one])
def test_what_is_proved_inactive_is_zero_in_float32_as_well(
    ask: Callable[[Ledger, Mapping[str, Bounds], float], Asked],
) -> None:
    """A unit that reads many inputs: float32 strays further than the solver's own tolerance."""
    network = perceptron([2, 1], 400, seed=0)
    first, second = network[1], network[3]
    first.weight[1], first.bias[1] = first.weight[0], first.bias[0]
    second.weight[0] = torch.tensor([1.0, -1.0])
    second.bias[0] = -0.5
    program = dense(network, 400)
    bounds = interval_bounds(program)
    ledger = Ledger(program, bounds)
    assert float(ledger.slack["3"][0]) > MARGIN * float(bounds["3"].size[0])
    ask(ledger, bounds, 20.0)
    (proof,) = ledger.proofs["3"].values()
    assert (proof.kind, proof.method) == ("inactive", "milp")
    assert proof.in_float32 and proof.bound >= -0.5


def test_a_bound_is_no_tighter_than_that_of_positions_settled_before() -> None:
    """A channel of two positions: intervals left a millionth to one, a solver more to the other."""
    ends = torch.tensor([[[-3.0, -3.0]]]).double(), torch.tensor([[[-(2.0**-20), 1.0]]]).double()
    zero = torch.zeros(1, 1, 2).double()
    layer = Node(name="x", shape=(1, 1, 2))
    found = {"x": Bounds(*ends, zero, zero)}
    assert _bound(found, layer, 0, "inactive", [0.25]) == -(2.0**-20)
    mirrored = {"x": Bounds(-ends[1], -ends[0], zero, zero)}
    assert _bound(mirrored, layer, 0, "active", [0.25]) == 2.0**-20
