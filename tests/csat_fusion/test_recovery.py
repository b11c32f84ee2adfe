"""Sparse recovery: agreement with scikit-learn, gradients, criteria, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso, MultiTaskLasso, OrthogonalMatchingPursuit
from torch import Tensor

from csat_fusion.errors import CompressionError
from csat_fusion.recovery.base import Recovered
from csat_fusion.recovery.proximal import duality_gap, fista, group_ista, ista, lipschitz, soft_threshold
from csat_fusion.recovery.pursuit import omp, simultaneous_omp

FLOAT = torch.float64


def make(m: int = 30, atoms: int = 50, channels: int = 4, sparsity: int = 5, seed: int = 0, noise: float = 0.0) -> Any:
    """A gaussian operator with unit columns, a code with common rows, and its measurements."""
    generator = torch.Generator().manual_seed(seed)
    operator = torch.randn(m, atoms, generator=generator, dtype=FLOAT)
    operator /= operator.norm(dim=0)
    code = torch.zeros(atoms, channels, dtype=FLOAT)
    rows = torch.randperm(atoms, generator=generator)[:sparsity]
    code[rows] = torch.randn(sparsity, channels, generator=generator, dtype=FLOAT)
    y = operator @ code + noise * torch.randn(m, channels, generator=generator, dtype=FLOAT)
    return y, operator, code


@pytest.mark.parametrize("method", [ista, fista])
@pytest.mark.parametrize("threshold", [0.05, 0.5])
def test_lasso_of_scikit_learn(method: Callable[..., Recovered], threshold: float) -> None:
    y, operator, _ = make(noise=0.1)
    got = method(y, operator, threshold, steps=20000, tolerance=1e-12)
    assert got.converged.all()
    lasso = Lasso(alpha=threshold / len(y), fit_intercept=False, tol=1e-14, max_iter=200000)
    want = np.stack([lasso.fit(operator.numpy(), y[:, c].numpy()).coef_ for c in range(y.shape[1])], axis=1)
    np.testing.assert_allclose(got.code.numpy(), want, atol=1e-7)
    assert 0 < (want != 0).mean() < 1
    torch.testing.assert_close(got.residual, (y - operator @ got.code).norm(dim=0))


@pytest.mark.parametrize("accelerate", [False, True])
def test_multi_task_lasso_of_scikit_learn(accelerate: bool) -> None:
    y, operator, _ = make(noise=0.1)
    got = group_ista(y, operator, 0.4, steps=20000, tolerance=1e-12, accelerate=accelerate)
    lasso = MultiTaskLasso(alpha=0.4 / len(y), fit_intercept=False, tol=1e-14, max_iter=200000)
    np.testing.assert_allclose(got.code.numpy(), lasso.fit(operator.numpy(), y.numpy()).coef_.T, atol=1e-7)
    rows = (got.code != 0).any(dim=1)
    assert 0 < rows.sum() < len(rows)
    assert (got.code[rows] != 0).all()


@pytest.mark.parametrize("sparsity", [1, 4, 12])
def test_omp_of_scikit_learn(sparsity: int) -> None:
    y, operator, _ = make(noise=0.3)
    got = omp(y, operator, sparsity)
    pursuit = OrthogonalMatchingPursuit(n_nonzero_coefs=sparsity, fit_intercept=False)
    want = np.stack([pursuit.fit(operator.numpy(), y[:, c].numpy()).coef_ for c in range(y.shape[1])], axis=1)
    np.testing.assert_allclose(got.code.numpy(), want, atol=1e-10)
    assert (got.iterations == sparsity).all()
    assert not got.converged.any()
    torch.testing.assert_close(got.residual, (y - operator @ got.code).norm(dim=0))


def test_omp_of_scikit_learn_to_a_tolerance() -> None:
    y, operator, _ = make(noise=0.05)
    got = omp(y, operator, 30, tolerance=0.2)
    for c in range(y.shape[1]):
        squared = float((0.2 * y[:, c].norm()) ** 2)
        pursuit = OrthogonalMatchingPursuit(tol=squared, fit_intercept=False).fit(operator.numpy(), y[:, c].numpy())
        np.testing.assert_allclose(got.code[:, c].numpy(), pursuit.coef_, atol=1e-10)
        assert got.iterations[c] == pursuit.n_iter_
    assert got.converged.all()
    assert (got.residual <= 0.2 * y.norm(dim=0)).all()


def test_simultaneous_omp_chooses_rows_for_all_channels() -> None:
    """With noise as strong as the signal, one channel alone goes wrong where all together do not."""
    y, operator, code = make(channels=32, noise=0.3, seed=3)
    truth = (code != 0).any(dim=1)
    together = (simultaneous_omp(y, operator, 5).code != 0).any(dim=1)
    assert torch.equal(together, truth)
    alone = (omp(y, operator, 5).code != 0) == truth[:, None]
    assert not alone.all(dim=0).all()
    one = omp(y[:, :1], operator, 5)
    torch.testing.assert_close(simultaneous_omp(y[:, :1], operator, 5).code, one.code)


def test_a_joint_method_sees_channels_only_through_their_norm() -> None:
    y, operator, _ = make(noise=0.1)
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=FLOAT))[0]
    for method, level in ((simultaneous_omp, 5), (group_ista, 0.3)):
        turned, plain = method(y @ turn, operator, level).code, method(y, operator, level).code @ turn
        torch.testing.assert_close(turned, plain, atol=1e-6, rtol=1e-6)


def test_the_gap_certifies() -> None:
    y, operator, _ = make(noise=0.1)

    def objective(code: Tensor, threshold: float) -> Tensor:
        return 0.5 * (y - operator @ code).square().sum(dim=0) + threshold * code.abs().sum(dim=0)

    best = fista(y, operator, 0.2, steps=50000, tolerance=1e-14).code
    assert duality_gap(y, operator, best, 0.2).max() < 1e-10
    for steps in (1, 10, 100):
        rough = ista(y, operator, 0.2, steps=steps, tolerance=0).code
        gap = duality_gap(y, operator, rough, 0.2)
        assert (gap >= objective(rough, 0.2) - objective(best, 0.2) - 1e-12).all()
        assert gap.min() > 1e-9
    group = group_ista(y, operator, 0.4, steps=50000, tolerance=1e-14, accelerate=True).code
    assert duality_gap(y, operator, group, 0.4, joint=True).item() < 1e-10
    assert duality_gap(y, operator, group * 1.1, 0.4, joint=True).item() > 1e-3


def test_acceleration_pays() -> None:
    y, operator, _ = make()
    slow, fast = ista(y, operator, 0.01, steps=5000), fista(y, operator, 0.01, steps=5000)
    assert fast.converged.all()
    assert (fast.iterations * 3 < slow.iterations).all()


def test_a_step_is_the_formula() -> None:
    y, operator, _ = make()
    scale = torch.linalg.matrix_norm(operator, ord=2) ** 2
    code = torch.zeros(50, 4, dtype=FLOAT)
    for _ in range(3):
        moved = code + operator.T @ (y - operator @ code) / scale
        code = moved.sign() * (moved.abs() - 0.1 / scale).clamp_min(0)
    got = ista(y, operator, 0.1, steps=3, tolerance=0)
    torch.testing.assert_close(got.code, code)
    assert got.iterations.tolist() == [3] * 4
    assert not got.converged.any()


@pytest.mark.parametrize(
    ("method", "level"), [(ista, 0.05), (fista, 0.05), (group_ista, 0.05), (omp, 5), (simultaneous_omp, 5)]
)
def test_a_problem_does_not_notice_the_others(method: Callable[..., Recovered], level: Any) -> None:
    """An easy one stops early and stays as it is while a hard one goes on."""
    problems = [make(seed=s, noise=0.05 * s, channels=1, sparsity=1 + 2 * s) for s in range(3)]
    y, operator = torch.stack([p[0] for p in problems]), torch.stack([p[1] for p in problems])
    options = {} if isinstance(level, int) else {"tolerance": 1e-5}
    together = method(y, operator, level, **options)
    for s in range(3):
        alone = method(y[s], operator[s], level, **options)
        torch.testing.assert_close(together.code[s], alone.code, rtol=0, atol=1e-12)
        assert torch.equal(together.iterations[s], alone.iterations)
    if not options:
        assert together.iterations[0].item() < together.iterations[2].item()  # one atom, then nothing is left
    else:
        assert len(set(together.iterations.flatten().tolist())) == 3


@pytest.mark.parametrize("name", ["ista", "fista", "group", "omp", "somp"])
def test_gradients_are_those_of_differences(name: str) -> None:
    y, operator, _ = make(m=6, atoms=8, channels=2, sparsity=2, noise=0.1)
    run: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "ista": lambda y, a: ista(y, a, 0.1, steps=7, tolerance=0).code,
        "fista": lambda y, a: fista(y, a, 0.1, steps=7, tolerance=0).code,
        "group": lambda y, a: group_ista(y, a, 0.1, steps=7, tolerance=0).code,
        "omp": lambda y, a: omp(y, a, 3).code,
        "somp": lambda y, a: simultaneous_omp(y, a, 3).code,
    }
    inputs = (y.requires_grad_(), operator.requires_grad_())
    assert torch.autograd.gradcheck(run[name], inputs)
    assert run[name](*inputs).abs().sum() > 0


def test_gradient_of_the_threshold() -> None:
    y, operator, _ = make(m=6, atoms=8, channels=2, sparsity=2, noise=0.1)
    level = torch.full((8, 1), 0.1, dtype=FLOAT, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: ista(y, operator, t, steps=5, tolerance=0).code, (level,))
    assert torch.autograd.gradcheck(lambda t: group_ista(y, operator, t, steps=5, tolerance=0).code, (level,))


def test_no_gradient_is_nan_where_the_code_is_zero() -> None:
    y = torch.zeros(6, 2, dtype=FLOAT, requires_grad=True)
    operator = make(m=6, atoms=8)[1].requires_grad_()
    for method, level in ((ista, 0.1), (fista, 0.1), (group_ista, 0.1), (omp, 2), (simultaneous_omp, 2)):
        got = method(y, operator, level)
        assert torch.equal(got.code, torch.zeros(8, 2, dtype=FLOAT))
        assert got.converged.all()
        for gradient in torch.autograd.grad(got.code.sum(), (y, operator), allow_unused=True):
            assert gradient is None or torch.isfinite(gradient).all()


def test_batches_broadcast() -> None:
    y, operator, _ = make()
    many = torch.stack([y, 2 * y, -y])[:, None].expand(3, 2, *y.shape)
    ways = torch.stack([operator, operator.flip(1)])
    for method, level in ((ista, 0.2), (group_ista, 0.2), (omp, 3), (simultaneous_omp, 3)):
        got = method(many, ways, level)
        assert got.code.shape == (3, 2, 50, 4)
        assert got.iterations.shape == got.converged.shape == got.residual.shape == (3, 2, 4)
        want = method(-y, operator.flip(1), level)
        torch.testing.assert_close(got.code[2, 1], want.code, atol=1e-9, rtol=1e-9)


def test_atoms_need_no_unit_norm_in_a_pursuit() -> None:
    y, operator, _ = make(noise=0.1)
    size = torch.logspace(-3, 3, 50, dtype=FLOAT)
    for method in (omp, simultaneous_omp):
        torch.testing.assert_close(method(y, operator * size, 5).code * size[:, None], method(y, operator, 5).code)


def test_the_residual_decides_better_where_atoms_are_alike() -> None:
    """Steps in time through a random measurement: 8 jumps, without noise."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.ones(128, 128, dtype=FLOAT).tril()
    steps /= steps.norm(dim=0)
    operator = torch.randn(64, 128, generator=generator, dtype=FLOAT) @ steps
    code = torch.zeros(128, 20, dtype=FLOAT)
    code[torch.randperm(128, generator=generator)[:9]] = torch.randn(9, 20, generator=generator, dtype=FLOAT)
    y = operator @ code
    found = simultaneous_omp(y, operator, 16, selection="residual")
    torch.testing.assert_close(found.code, code, rtol=0, atol=1e-7)
    assert not simultaneous_omp(y, operator, 16).converged.any()


@pytest.mark.parametrize("sparsity", [2, 5])
def test_the_atom_that_leaves_the_least_residual(sparsity: int) -> None:
    """Against trying each atom in turn."""
    y, operator, _ = make(m=8, atoms=12, channels=3, sparsity=3, noise=0.5)

    def left(chosen: list[int], target: Tensor) -> float:
        part = operator[:, chosen]
        return float((target - part @ torch.linalg.lstsq(part, target).solution).norm())

    for joint in (False, True):
        method = simultaneous_omp if joint else omp
        got = method(y, operator, sparsity, selection="residual")
        for c in range(3):
            target = y if joint else y[:, c : c + 1]
            chosen: list[int] = []
            for _ in range(sparsity):
                rest = [k for k in range(12) if k not in chosen]
                chosen.append(min(rest, key=lambda k: left([*chosen, k], target)))
            assert sorted(chosen) == got.code[:, c].nonzero()[:, 0].tolist()


def test_twins_and_zeros_among_the_atoms() -> None:
    operator = make(m=5, atoms=4, channels=3, sparsity=4)[1]
    twins = torch.cat([operator, operator, torch.zeros(5, 3, dtype=FLOAT)], dim=1)
    target = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=FLOAT)  # nothing fits it
    for method in (omp, simultaneous_omp):
        got = method(target, twins, 5)
        assert (got.iterations == 4).all()  # the fifth would depend on the others
        assert (got.code[8:] == 0).all()
        best = torch.linalg.lstsq(operator, target).solution
        torch.testing.assert_close(got.code[:4] + got.code[4:8], best)
        assert not got.converged.any()
        nothing = method(target, torch.zeros(5, 6, dtype=FLOAT), 3)
        assert (nothing.code == 0).all()
        assert (nothing.iterations == 0).all()
    for method in (ista, fista, group_ista):
        got = method(target, twins, 0.01)
        assert (got.code[8:] == 0).all()
        assert (method(target, torch.zeros(5, 6, dtype=FLOAT), 0.01).code == 0).all()


def test_a_pursuit_stops_when_nothing_is_left() -> None:
    for dtype in (torch.float32, FLOAT):
        y, operator, code = (part.to(dtype) for part in make(m=40, sparsity=3))
        for method in (omp, simultaneous_omp):
            got = method(y, operator, 20)
            assert got.iterations.tolist() == [3] * 4
            assert got.converged.all()
            torch.testing.assert_close(got.code, code)


def test_an_early_end_keeps_the_first_atom() -> None:
    """What fills up the list of chosen atoms names atom 0, which may be one of them."""
    _, operator, _ = make(m=40)
    code = torch.zeros(50, 2, dtype=FLOAT)
    code[:3] = torch.tensor([[1.0, -2.0], [0.5, 1.0], [2.0, 1.0]])
    for method in (omp, simultaneous_omp):
        torch.testing.assert_close(method(operator @ code, operator, 30).code, code)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, FLOAT])
def test_type_is_that_of_y(dtype: torch.dtype) -> None:
    y, operator, _ = make()
    for method, level in ((ista, 0.2), (fista, 0.2), (group_ista, 0.2), (omp, 5), (simultaneous_omp, 5)):
        got = method(y.to(dtype), operator, level)
        assert got.code.dtype == got.residual.dtype == dtype
        want = method(y.to(dtype).double(), operator, level)
        torch.testing.assert_close(got.code, want.code.to(dtype), atol=1e-4, rtol=1e-2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(method(y.to(dtype), operator, level).code, got.code)


def test_soft_threshold_and_step_size() -> None:
    values = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])
    assert soft_threshold(values, 1.0).tolist() == [-2.0, 0, 0, 0, 0, 0, 2.0]
    operator = make()[1]
    for matrix in (operator, operator.T):
        want = torch.linalg.matrix_norm(matrix, ord=2) ** 2
        torch.testing.assert_close(lipschitz(matrix).squeeze(), want)
        assert lipschitz(matrix) >= want


@pytest.mark.parametrize("method", [ista, fista, group_ista])
@pytest.mark.parametrize(
    ("power", "of_y"), [(-110, 0), (-83, 0), (-66, -40), (-66, 60), (63, 0), (63, 60), (90, -20), (110, 0)]
)
def test_the_size_of_the_operator_and_of_y_changes_no_digit(
    method: Callable[..., Recovered], power: int, of_y: int
) -> None:
    """The squares of the operator leave float32 both ways."""
    y, operator, _ = (part.float() for part in make(noise=0.05))
    size, target = 2.0**power, 2.0**of_y
    plain = method(y, operator, 0.125, steps=200, tolerance=1e-4)
    got = method(y * target, operator * size, 0.125 * target * size, steps=200, tolerance=1e-4)
    assert torch.equal(got.code, plain.code * (target / size))
    assert torch.equal(got.residual, plain.residual * target)
    assert torch.equal(got.iterations, plain.iterations)
    assert torch.equal(got.converged, plain.converged)
    assert (plain.code != 0).any()


def test_a_tiny_operator_is_fitted_and_a_threshold_above_all_gives_zero() -> None:
    y, operator, _ = (part.float() for part in make())
    for size in (1e-20, 1e-25, 1e19, 1e30):
        for method in (ista, fista, group_ista):
            got = method(y, operator * size, 0.0, steps=2000, tolerance=1e-4)
            assert (got.residual < 0.05 * y.norm(dim=0)).all()
            assert not method(y, operator * size, 1e38).code.any()


Y, A, _ = make(m=6, atoms=8)
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no tensor": (lambda: ista(np.zeros((6, 2)), A, 0.1), "y must be floating point .*got ndarray"),
    "whole numbers": (lambda: omp(Y.long(), A, 2), r"y must be floating point .*torch\.int64"),
    "no channels": (lambda: ista(Y[:, :0], A, 0.1), r"\[6, 0\]"),
    "no atoms": (lambda: omp(Y, A[:, :0], 1), r"operator must be .*\[6, 0\]"),
    "a vector": (lambda: ista(Y[:, 0], A, 0.1), r"got torch\.float64 \[6\]"),
    "rows": (lambda: fista(Y[:5], A, 0.1), "y has 5 measurements, the operator 6 rows"),
    "batch": (lambda: omp(Y.expand(2, 6, 4), A.expand(3, 6, 8), 2), r"\[2\] of y and \[3\] of the operator"),
    "nan": (lambda: omp(Y * math.nan, A, 2), "y must be finite, got nan"),
    "infinite": (lambda: ista(Y, A / 0, 0.1), "operator must be finite, got -?inf"),
    "device": (lambda: ista(Y, A.to("meta"), 0.1), "y is on cpu, the operator on meta"),
    "negative threshold": (lambda: ista(Y, A, -0.1), "threshold must be finite and at least 0, got -0.1"),
    "endless threshold": (lambda: ista(Y, A, math.inf), "got inf"),
    "threshold of text": (lambda: ista(Y, A, "0.1"), "threshold must be a number or a tensor, got str"),
    "threshold shape": (lambda: ista(Y, A, torch.ones(7, 1)), r"\[7, 1\] does not broadcast to the code's \[8, 4\]"),
    "threshold larger": (lambda: ista(Y, A, torch.ones(2, 8, 1)), r"\[2, 8, 1\] does not broadcast"),
    "threshold a group": (lambda: group_ista(Y, A, torch.ones(8, 4)), r"\[8, 4\] does not broadcast .*\[8, 1\]"),
    "no steps": (lambda: ista(Y, A, 0.1, steps=0), "steps must be a whole number, at least 1, got 0"),
    "half a step": (lambda: ista(Y, A, 0.1, steps=1.5), "got 1.5"),
    "tolerance": (lambda: ista(Y, A, 0.1, tolerance=1.0), "tolerance must be at least 0 and below 1, got 1.0"),
    "tolerance of a pursuit": (lambda: omp(Y, A, 2, tolerance=math.nan), "got nan"),
    "sparsity 0": (lambda: omp(Y, A, 0), "sparsity must be a whole number, 1 to 6, got 0"),
    "sparsity above m": (lambda: simultaneous_omp(Y, A, 7), "1 to 6, got 7"),
    "selection": (lambda: omp(Y, A, 2, selection="best"), "one of correlation, residual, got 'best'"),
    "sparsity true": (lambda: omp(Y, A, True), "got True"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_named(bad: str) -> None:
    call, message = BAD[bad]
    with pytest.raises(CompressionError, match=message):
        call()
