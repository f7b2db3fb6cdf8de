"""Fan-out by least squares against explicit regressions in float64."""

import numpy as np
import pytest
import torch

from tinygrow.growth.refit import (
    RefitMoments,
    centred,
    choose_and_fit,
    fit_scales,
    inverse_fisher,
)

TAPS, CANDIDATES, OUTPUTS, ROWS = 2, 5, 3, 60
TINY = 1e-12


def scene(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, RefitMoments]:
    """Return what the taps read (rows, C * T), the target (rows, q) and their moments."""
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(ROWS, CANDIDATES * TAPS, generator=generator, dtype=torch.float64)
    h = h @ torch.randn(h.shape[1], h.shape[1], generator=generator, dtype=torch.float64)
    v = torch.randn(ROWS, OUTPUTS, generator=generator, dtype=torch.float64)
    v = 0.3 * h[:, :OUTPUTS] + v @ torch.diag(torch.tensor([1.0, 3.0, 0.2], dtype=torch.float64))
    return h, v, RefitMoments(h.T @ h / ROWS, h.T @ v / ROWS, v.T @ v / ROWS)


def residual(h: torch.Tensor, v: torch.Tensor, chosen: list[int]) -> float:
    columns = [k * TAPS + t for k in chosen for t in range(TAPS)]
    x = h[:, columns].numpy()
    fit = np.linalg.lstsq(x, v.numpy(), rcond=None)[0]
    return float(np.square(v.numpy() - x @ fit).sum() / ROWS)


def test_all_candidates_give_the_regression() -> None:
    h, v, moments = scene()
    fit = choose_and_fit(moments, TAPS, CANDIDATES, TINY, None)
    omega = torch.empty(CANDIDATES, TAPS, OUTPUTS, dtype=torch.float64)
    omega[fit.chosen] = fit.fan_out
    wanted = np.linalg.lstsq(h.numpy(), v.numpy(), rcond=None)[0]
    np.testing.assert_allclose(omega.reshape(-1, OUTPUTS).numpy(), wanted, rtol=1e-6, atol=1e-8)


def test_where_nothing_can_be_gained_nothing_is_chosen() -> None:
    _, _, moments = scene()
    still = RefitMoments(moments.gram, torch.zeros_like(moments.cross), moments.fisher)
    fit = choose_and_fit(still, TAPS, 2, TINY, None)
    assert len(fit.chosen) == 0 and fit.fan_out.shape == (0, TAPS, OUTPUTS)


@pytest.mark.parametrize("seed", range(3))
def test_each_choice_is_the_one_that_lowers_the_residual_most(seed: int) -> None:
    h, v, moments = scene(seed)
    fit = choose_and_fit(moments, TAPS, 3, TINY, None)
    chosen: list[int] = []
    before = float(v.square().sum() / ROWS)
    for k in range(3):
        rest = [c for c in range(CANDIDATES) if c not in chosen]
        after = {c: residual(h, v, [*chosen, c]) for c in rest}
        best = min(after, key=after.__getitem__)
        assert int(fit.chosen[k]) == best
        assert float(fit.gains[k]) == pytest.approx(before - after[best], rel=1e-6)
        chosen.append(best)
        before = after[best]


def test_the_fisher_fit_has_no_slope_left() -> None:
    """With F as curvature the objective <d, F d> / 2 - <V, d> is flat in the chosen weights."""
    h, v, moments = scene()
    fit = choose_and_fit(moments, TAPS, 3, TINY, 0.1)
    columns = [int(k) * TAPS + t for k in fit.chosen for t in range(TAPS)]
    x = h[:, columns]
    moved = x @ fit.fan_out.reshape(-1, OUTPUTS)
    curvature = torch.linalg.inv(inverse_fisher(moments.fisher, 0.1))
    slope = x.T @ (moved @ curvature - v) / ROWS
    assert float(slope.abs().max()) < 1e-8 * float((x.T @ v).abs().max())


def test_the_fisher_metric_prefers_outputs_of_small_variance() -> None:
    """Two candidates, each for an output of its own; the louder output bends the loss more."""
    h = torch.eye(4, dtype=torch.float64).repeat(10, 1)
    v = torch.zeros(40, 2, dtype=torch.float64)
    v[:, 0] = 3.0 * h[:, 0] + 30.0 * h[:, 3]
    v[:, 1] = h[:, 1] + 0.1 * h[:, 2]
    moments = RefitMoments((h.T @ h / 40)[:2, :2], (h.T @ v / 40)[:2], v.T @ v / 40)
    assert int(choose_and_fit(moments, 1, 1, TINY, None).chosen[0]) == 0
    assert int(choose_and_fit(moments, 1, 1, TINY, 0.01).chosen[0]) == 1


def test_a_copy_of_a_chosen_candidate_is_not_chosen() -> None:
    h, v, _ = scene()
    h = torch.cat([h, h[:, :TAPS]], 1)  # candidate 5 is candidate 0
    moments = RefitMoments(h.T @ h / ROWS, h.T @ v / ROWS, v.T @ v / ROWS)
    fit = choose_and_fit(moments, TAPS, CANDIDATES, 1e-9, None)
    assert len({0, 5} & set(fit.chosen.tolist())) == 1
    assert bool(torch.isfinite(fit.fan_out).all())


def test_dead_candidates_are_no_harm() -> None:
    h, v, _ = scene()
    h[:, :TAPS] = 0.0
    moments = RefitMoments(h.T @ h / ROWS, h.T @ v / ROWS, v.T @ v / ROWS)
    fit = choose_and_fit(moments, TAPS, CANDIDATES, 0.1, 0.1)
    assert 0 not in fit.chosen.tolist()
    assert bool(torch.isfinite(fit.fan_out).all())


def test_centred_is_the_regression_beside_a_bias() -> None:
    h, v, _ = scene()
    h, v = h + 2.0, v - 1.0
    ones = torch.cat([h, torch.ones(ROWS, 1, dtype=torch.float64)], 1)
    gram, cross = centred(ones.T @ ones / ROWS, ones.T @ v / ROWS)
    fit = choose_and_fit(RefitMoments(gram, cross, v.T @ v / ROWS), TAPS, CANDIDATES, TINY, None)
    omega = torch.empty(CANDIDATES, TAPS, OUTPUTS, dtype=torch.float64)
    omega[fit.chosen] = fit.fan_out
    wanted = np.linalg.lstsq(ones.numpy(), v.numpy(), rcond=None)[0][:-1]
    np.testing.assert_allclose(omega.reshape(-1, OUTPUTS).numpy(), wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("damping", [None, 0.1])
def test_scales_are_the_regression_on_whole_contributions(damping: float | None) -> None:
    h, v, moments = scene()
    omega = torch.randn(CANDIDATES, TAPS, OUTPUTS, dtype=torch.float64)
    parts = torch.einsum("rkt,ktq->krq", h.reshape(ROWS, CANDIDATES, TAPS), omega)
    root = torch.eye(OUTPUTS, dtype=torch.float64)
    if damping is not None:
        root = torch.linalg.cholesky(torch.linalg.inv(inverse_fisher(moments.fisher, damping)))
    # Least squares in the metric root root^T, with the target that makes <V, part> its product.
    x = (parts @ root).reshape(CANDIDATES, -1).T.numpy()
    y = (v @ torch.linalg.inv(root).T).reshape(-1).numpy()
    wanted = np.linalg.lstsq(x, y, rcond=None)[0]
    signs = torch.tensor(np.sign(wanted))
    found = fit_scales(moments, omega * signs[:, None, None], TINY, damping)
    np.testing.assert_allclose(found.numpy(), np.abs(wanted), rtol=1e-6)


def test_a_neuron_that_works_against_the_target_gets_no_scale() -> None:
    h = torch.eye(2, dtype=torch.float64)
    v = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    moments = RefitMoments(h.T @ h / 2, h.T @ v / 2, v.T @ v / 2)
    scales = fit_scales(moments, torch.ones(2, 1, 1, dtype=torch.float64), 1e-12, None)
    assert scales.tolist() == pytest.approx([1.0, 0.0])
