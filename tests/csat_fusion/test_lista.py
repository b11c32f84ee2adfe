"""LISTA: untrained it is ISTA, trained it beats it, and it can be stored and exported."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from csat_fusion.errors import CompressionError
from csat_fusion.recovery.lista import LISTA
from csat_fusion.recovery.proximal import ista


def problems(count: int, seed: int, m: int = 16, atoms: int = 32, sparsity: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """An operator that is the same for all seeds; codes and measurements, one problem a channel."""
    operator = torch.randn(m, atoms, generator=torch.Generator().manual_seed(99)) / m**0.5
    generator = torch.Generator().manual_seed(seed)
    code = torch.randn(atoms, count, generator=generator)
    code *= torch.rand(atoms, count, generator=generator).argsort(dim=0) < sparsity
    return operator, code, operator @ code


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 16])
@pytest.mark.parametrize("threshold", [0.0, 0.05])
def test_untrained_it_is_ista(shared: bool, steps: int, threshold: float) -> None:
    operator, _, y = problems(5, seed=0)
    for dtype, limit in ((torch.float64, 1e-13), (torch.float32, 3e-6)):
        model = LISTA(operator.to(dtype), steps=steps, threshold=threshold, shared=shared)
        batch = torch.stack([y, -2 * y]).to(dtype)
        want = ista(batch, operator.to(dtype), threshold, steps=steps, tolerance=0).code
        torch.testing.assert_close(model(batch), want, rtol=0, atol=limit)
        assert want.abs().max() > 0.1


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("size", [1e-25, 1e-20, 1e19, 1e25])
def test_untrained_it_is_ista_for_an_operator_of_any_size(shared: bool, size: float) -> None:
    operator, _, y = problems(5, seed=0)
    for threshold in (0.0, 0.05 * size, 1e30):
        model = LISTA(operator * size, steps=8, threshold=threshold, shared=shared)
        assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
        want = ista(y, operator * size, threshold, steps=8, tolerance=0).code
        torch.testing.assert_close(model(y) * size, want * size, rtol=0, atol=3e-6)
        assert bool(want.any()) == (threshold < 1e30)


def test_training_beats_ista_at_equal_steps() -> None:
    operator, code, y = problems(512, seed=1)
    _, unseen, measured = problems(512, seed=2)
    model = LISTA(operator, steps=6, threshold=0.05, shared=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(300):
        optimizer.zero_grad()
        (model(y) - code).square().mean().backward()
        optimizer.step()

    def error(got: Tensor) -> float:
        return float((got - unseen).norm() / unseen.norm())

    of_ista = min(
        error(ista(measured, operator, level, steps=6, tolerance=0).code) for level in (0.005, 0.01, 0.02, 0.05, 0.1)
    )
    assert error(model(measured).detach()) < 0.7 * of_ista


def test_thresholds_are_never_negative_and_can_leave_zero() -> None:
    operator, code, y = problems(8, seed=0)
    model = LISTA(operator, steps=3, threshold=0.0)
    assert (model.threshold == 0).all()
    model(y).sub(code).square().sum().backward()
    gradient = model.raw_threshold.grad
    assert gradient is not None
    assert gradient.abs().max() > 0
    with torch.no_grad():
        model.raw_threshold.sub_(0.3)
    assert torch.equal(model.threshold, torch.full_like(model.threshold, 0.3))


@pytest.mark.parametrize("shared", [True, False])
def test_state_is_stable_and_comes_back(shared: bool) -> None:
    operator, _, y = problems(4, seed=0)
    model = LISTA(operator, steps=3, threshold=0.1, shared=shared)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    steps = 1 if shared else 3
    assert shapes == {
        "encoder": (steps, 32, 16),
        "recurrence": (1 if shared else 2, 32, 32),
        "raw_threshold": (steps, 32),
    }
    other = LISTA(torch.randn(16, 32, generator=torch.Generator().manual_seed(1)), steps=3, shared=shared)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(y), model(y))


@pytest.mark.parametrize("shared", [True, False])
def test_it_exports(shared: bool) -> None:
    operator, _, y = problems(4, seed=0)
    model = LISTA(operator, steps=3, shared=shared)
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    exported = torch.export.export(model, (torch.stack([y, y]),), dynamic_shapes=(batch,))
    three = torch.stack([y, 2 * y, -y])
    torch.testing.assert_close(exported.module()(three), model(three))


def test_gradients_are_those_of_differences() -> None:
    operator, _, y = problems(2, seed=0, m=4, atoms=6)
    model = LISTA(operator.double(), steps=3, threshold=0.05, shared=False)
    names = [name for name, _ in model.named_parameters()]

    def run(y: Tensor, *parameters: Tensor) -> Tensor:
        out = torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (y,))
        assert isinstance(out, Tensor)
        return out

    values = [p.detach().clone().requires_grad_() for p in model.parameters()]
    assert torch.autograd.gradcheck(run, (y.double().requires_grad_(), *values))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_type_is_that_of_y(dtype: torch.dtype) -> None:
    operator, _, y = problems(4, seed=0)
    model = LISTA(operator.to(dtype), steps=4, threshold=0.1)
    assert model.encoder.dtype == torch.promote_types(dtype, torch.float32)
    got = model(y.to(dtype))
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), LISTA(operator, steps=4, threshold=0.1)(y), atol=0.05, rtol=0.05)


def test_bad_input_is_named() -> None:
    operator, _, y = problems(4, seed=0)
    for arguments, message in (
        ({"steps": 0}, "steps must be a whole number, at least 1, got 0"),
        ({"threshold": -0.1}, "threshold must be finite and at least 0, got -0.1"),
        ({"threshold": math.nan}, "got nan"),
        ({"threshold": "0.1"}, "threshold must be a number, got '0.1'"),
    ):
        with pytest.raises(CompressionError, match=message):
            LISTA(operator, **arguments)  # type: ignore[arg-type]
    for bad, message in (
        (operator[None], r"must be \[m, K\], got \[1, 16, 32\]"),
        (operator * math.inf, "must be finite"),
        (operator[:0], r"\[0, 32\]"),
    ):
        with pytest.raises(CompressionError, match=message):
            LISTA(bad)
    model = LISTA(operator)
    for bad_y, message in (
        (y[:5], r"\[.., 16, d\], got torch.float32 \[5, 4\]"),
        (y[:, 0], r"\[16\]"),
        (y.long(), "int64"),
        (y.to("meta"), "y is on meta, LISTA on cpu"),
    ):
        with pytest.raises(CompressionError, match=message):
            model(bad_y)
