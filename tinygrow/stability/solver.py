"""HiGHS, a free solver of mixed-integer programs, where the package `highspy` is installed.

Each call makes a solver of its own: on one object the time limit of linear programs counts all
calls together, after which it returns at once with what it had. A bound is taken from the solver's
dual bound alone, and only where the status says that it is one (exact_compression.md, section 6).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrow.errors import TinygrowError
from tinygrow.stability.encoding import Rows


@dataclass(frozen=True, slots=True)
class Answer:
    """What the solver says of a maximum.

    Attributes:
        bound: no point is higher; infinity where nothing is sure.
        point: the best one found, a value for each column, or None.
        value: of the objective there.
    """

    bound: float
    point: np.ndarray[Any, np.dtype[np.float64]] | None
    value: float


def has_solver() -> bool:
    """Say whether `highspy` can be imported."""
    try:
        import highspy  # noqa: F401
    except ImportError:
        return False
    return True


def maximise(
    rows: Rows,
    objective: Sequence[tuple[int, float]],
    *,
    seconds: float,
    enough: float,
    hopeless: float,
    relaxed: bool = False,
) -> Answer:
    """Maximise a linear function.

    Args:
        rows: the program.
        objective: column and coefficient of its terms.
        seconds: to spend.
        enough: stop at the first point that is at least as high.
        hopeless: stop once no point can be higher.
        relaxed: let binary numbers be anything between 0 and 1.

    Raises:
        TinygrowError: `highspy` is not installed.
    """
    highspy = _highspy()
    solver = highspy.Highs()
    solver.silent()
    integers = bool(rows.binary) and not relaxed
    for name, value in (
        ("time_limit", max(seconds, 0.01)),
        ("threads", 1),
        ("mip_rel_gap", 0.0),
        ("mip_abs_gap", 1e-6),
    ):
        _require(solver.setOptionValue(name, value), f"option {name}")
    _require(solver.passModel(_model(highspy, rows, objective, integers)), "the program")
    stopped_by_bound = False
    if integers:

        def look(event: Any) -> None:
            nonlocal stopped_by_bound
            out = event.data_out
            stopped_by_bound |= out.mip_dual_bound < hopeless
            if stopped_by_bound or out.mip_primal_bound >= enough:
                event.interrupt()

        solver.cbMipInterrupt.subscribe(look)
    _require(solver.run(), "the run")
    status, info = solver.getModelStatus(), solver.getInfo()
    kinds = highspy.HighsModelStatus
    if status == kinds.kInfeasible:
        # The network itself is a feasible point: such an answer is a fault, and proves nothing.
        return Answer(np.inf, None, -np.inf)
    optimal = status == kinds.kOptimal
    sure = optimal or (status == kinds.kInterrupt and stopped_by_bound)
    bound = float(info.mip_dual_bound if integers else info.objective_function_value)
    feasible = int(info.primal_solution_status) == 2
    point = np.array(solver.getSolution().col_value) if feasible else None
    value = float(info.objective_function_value) if feasible else -np.inf
    return Answer(bound if sure and np.isfinite(bound) else np.inf, point, value)


def _highspy() -> Any:
    try:
        import highspy
    except ImportError as error:
        raise TinygrowError(
            "compress.stability.milp needs the solver HiGHS; install tinygrow[milp] (the package"
            " highspy), or set it to off"
        ) from error
    return highspy


def _require(status: Any, what: str) -> None:
    # A warning is given for a time limit, too.
    if str(status).endswith("kError"):
        raise TinygrowError(f"the solver HiGHS refuses {what}; set compress.stability.milp to off")


def _model(highspy: Any, rows: Rows, objective: Sequence[tuple[int, float]], integers: bool) -> Any:
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(rows.lower), len(rows.row_lower)
    costs = np.zeros(len(rows.lower))
    for column, value in objective:
        costs[column] += value
    model.col_cost_ = costs
    model.col_lower_, model.col_upper_ = np.array(rows.lower), np.array(rows.upper)
    model.row_lower_, model.row_upper_ = np.array(rows.row_lower), np.array(rows.row_upper)
    model.sense_ = highspy.ObjSense.kMaximize
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    model.a_matrix_.start_ = np.array(rows.starts, dtype=np.int32)
    model.a_matrix_.index_ = np.array(rows.columns, dtype=np.int32)
    model.a_matrix_.value_ = np.array(rows.values)
    if integers:
        kinds = [highspy.HighsVarType.kContinuous] * len(rows.lower)
        for column in rows.binary:
            kinds[column] = highspy.HighsVarType.kInteger
        model.integrality_ = kinds
    return model
