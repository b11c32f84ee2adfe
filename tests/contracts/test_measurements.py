"""What every measurement promises. A new one is one line in the table ``MEASUREMENTS`` and one in ``CASES``."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csat_fusion.errors import CompressionError
from csat_fusion.measurements.base import MEASUREMENTS, Measurement, make_measurement

ROWS, COLUMNS = 7, 21


@dataclass(frozen=True)
class Case:
    """``seeded``: the matrix depends on the seed; ``places``: it holds tensors, so it is on one device."""

    name: str
    seeded: bool = True
    places: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, rows: int = ROWS, columns: int | None = COLUMNS, seed: int = 5, **more: Any) -> Measurement:
        return make_measurement(self.name, rows, columns, seed=seed, **self.options, **more)


_ASSIGNMENT = torch.arange(COLUMNS) * 5 % 6 - 1  # rows 0 to 4; some are left out, rows 5 and 6 stay empty
CASES = [
    Case("gaussian"),
    Case("rademacher"),
    Case("hadamard"),
    Case("sparse-sign"),
    Case("sparse-sign", options={"nonzeros": 3}),
    Case("learned", places=True),
    Case("learned", seeded=False, places=True, options={"averaging": True}),
    Case("merging", seeded=False, places=True),
    Case("merging", False, True, {"assignment": _ASSIGNMENT, "weight": torch.arange(COLUMNS) % 4 / 2 + 0.25}),
]
every = pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join([c.name, *c.options]))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_measurement_of_the_table_is_tested() -> None:
    assert {case.name for case in CASES} == set(MEASUREMENTS)


@every
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_forward_and_adjoint_are_products_with_the_matrix(case: Case, lead: tuple[int, ...]) -> None:
    measurement = case.make()
    matrix = measurement.matrix()
    assert matrix.shape == (measurement.rows, measurement.columns) == (ROWS, COLUMNS)
    assert (matrix.dtype, matrix.device.type) == (torch.float64, "cpu")
    tokens, measured = normal(*lead, COLUMNS, 4), normal(*lead, ROWS, 4, seed=1)
    torch.testing.assert_close(measurement(tokens), matrix @ tokens)
    torch.testing.assert_close(measurement.adjoint(measured), matrix.T @ measured)
    torch.testing.assert_close(
        (measurement(tokens) * measured).sum(), (tokens * measurement.adjoint(measured)).sum()
    )  # <Phi x, y> = <x, Phi^T y>
    torch.testing.assert_close(measurement.adjoint(measured, 6, 2), matrix[:, 2:8].T @ measured)


@every
@settings(max_examples=25, deadline=None)
@given(cuts=st.sets(st.integers(0, COLUMNS)))
def test_chunking_does_not_change_a_column_or_the_sum(case: Case, cuts: set[int]) -> None:
    measurement, whole = case.make(), case.make().matrix()
    tokens = normal(2, COLUMNS, 3)
    total = torch.zeros(2, ROWS, 3, dtype=torch.float64)
    edges = [0, *sorted(cuts), COLUMNS]
    for start, stop in pairwise(edges):
        assert torch.equal(measurement.block(start, stop), whole[:, start:stop])
        total += measurement.partial(tokens[:, start:stop], start)
    torch.testing.assert_close(total, measurement(tokens))


@every
def test_the_same_seed_gives_the_same_and_torch_s_generator_is_left_alone(case: Case) -> None:
    before = torch.get_rng_state()
    first, again, other = case.make(), case.make(), case.make(seed=6)
    first(normal(COLUMNS, 2))
    assert torch.equal(first.matrix(), again.matrix())
    assert torch.equal(first.matrix(), other.matrix()) != case.seeded
    assert torch.equal(torch.get_rng_state(), before)


@every
def test_rows_are_means_where_it_says_so(case: Case) -> None:
    measurement = case.make()
    matrix = measurement.matrix()
    total = matrix.sum(dim=1)
    if measurement.averaging:
        assert bool((matrix >= 0).all())
        some = total > 0  # a row of a merging that no token went to
        torch.testing.assert_close(total[some], torch.ones_like(total[some]), rtol=1e-6, atol=0)
    else:
        assert bool((matrix < 0).any())


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_type_is_kept_and_sums_are_wide(case: Case, dtype: torch.dtype) -> None:
    measurement = case.make()
    tokens, measured = normal(2, COLUMNS, 3).to(dtype), normal(2, ROWS, 3).to(dtype)
    matrix = measurement.matrix()
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            got = measurement(tokens), measurement.partial(tokens[:, :5], 3), measurement.adjoint(measured)
        exact = matrix @ tokens.double(), matrix[:, 3:8] @ tokens[:, :5].double(), matrix.T @ measured.double()
        for one, other in zip(got, exact, strict=True):
            assert one.dtype == dtype
            rounding = max(torch.finfo(dtype).eps, 1e-6 if dtype == torch.float32 else 0)
            assert float((one.double() - other).detach().abs().max()) <= 4 * max(rounding, 1e-14)


@every
def test_gradients_agree_with_finite_differences_and_have_gradients(case: Case) -> None:
    measurement = case.make().double()
    tokens, measured = normal(COLUMNS, 2).requires_grad_(), normal(ROWS, 2).requires_grad_()
    assert torch.autograd.gradcheck(measurement, tokens)
    assert torch.autograd.gradcheck(measurement.adjoint, measured)
    assert torch.autograd.gradcheck(lambda x: measurement.partial(x[:4], 3), tokens)
    assert torch.autograd.gradcheck(lambda y: measurement.adjoint(y, 5, 3), measured)
    assert torch.autograd.gradgradcheck(lambda x: measurement(x).square(), tokens)
    assert torch.autograd.gradgradcheck(lambda y: measurement.adjoint(y).square(), measured)


@every
def test_it_can_be_copied_saved_and_exported(case: Case) -> None:
    measurement, tokens = case.make(), normal(2, COLUMNS, 3).float()
    again = case.make(seed=5)
    again.load_state_dict(measurement.state_dict())
    assert torch.equal(again(tokens), measurement(tokens))
    assert torch.equal(copy.deepcopy(measurement)(tokens), measurement(tokens))
    exported = torch.export.export(measurement, (tokens,)).module()
    torch.testing.assert_close(exported(tokens), measurement(tokens))
    torch.testing.assert_close(measurement(tokens), measurement.matrix().float() @ tokens)  # export left no trace


@every
def test_results_are_on_the_device_of_the_tokens(case: Case) -> None:
    """The device ``meta`` computes no values, but says where a value would have been computed."""
    tokens, measured = torch.zeros(COLUMNS, 3, device="meta"), torch.zeros(ROWS, 3, device="meta")
    measurement = case.make()
    if case.places:
        with pytest.raises(CompressionError, match="measurement is on cpu, the tokens are on meta"):
            measurement(tokens)
        measurement = measurement.to("meta")
    assert measurement(tokens).device.type == "meta"
    assert measurement.adjoint(measured).device.type == "meta"


@every
def test_no_tokens_measure_zero(case: Case) -> None:
    empty = torch.zeros(2, 0, 3)
    got = case.make().partial(empty, 4)
    assert torch.equal(got, torch.zeros(2, ROWS, 3))
    assert case.make().adjoint(torch.ones(ROWS, 3), 0).shape == (0, 3)
    assert case.make()(torch.zeros(COLUMNS, 0)).shape == (ROWS, 0)


BAD_TOKENS = {
    "whole numbers": (torch.zeros(COLUMNS, 3, dtype=torch.int64), r"torch\.int64 \[21, 3\]"),
    "a vector": (torch.zeros(COLUMNS), r"torch\.float32 \[21\]"),
    "no tensor": ([[1.0]], "got list"),
    "too few": (torch.zeros(COLUMNS - 1, 3), "has 21 columns, got 20 tokens"),
}


@every
@pytest.mark.parametrize("bad", BAD_TOKENS)
def test_bad_tokens_are_refused(case: Case, bad: str) -> None:
    tokens, message = BAD_TOKENS[bad]
    with pytest.raises(CompressionError, match=message):
        case.make()(tokens)


@every
def test_bad_rows_and_columns_are_refused(case: Case) -> None:
    measurement = case.make()
    with pytest.raises(CompressionError, match="has 7 rows, got 6"):
        measurement.adjoint(torch.zeros(ROWS - 1, 3))
    for start, stop in ((-1, 3), (5, 4), (0, COLUMNS + 1)):
        with pytest.raises(CompressionError, match=f"columns {start} to {stop} were asked for"):
            measurement.block(start, stop)
    with pytest.raises(CompressionError, match="columns 20 to 22 were asked for; there are 0 to 21"):
        measurement.partial(torch.zeros(2, 3), COLUMNS - 1)
    with pytest.raises(CompressionError, match=r"whole number, got 0\.5"):
        measurement.block(0.5, 3)  # type: ignore[arg-type]


@every
def test_bad_options_are_named(case: Case) -> None:
    for value in (0, -2, 1.5, True):
        with pytest.raises(CompressionError, match=f"rows of a measurement must be .* at least 1, got {value!r}"):
            make_measurement(case.name, value, COLUMNS)  # type: ignore[arg-type]
        with pytest.raises(CompressionError, match=f"columns of a measurement must be .* at least 1, got {value!r}"):
            make_measurement(case.name, ROWS, value)  # type: ignore[arg-type]
    with pytest.raises(CompressionError, match="no option 'wobble'"):
        case.make(wobble=True)
    if case.seeded:
        for seed in (-1, 2**63, 1.0, True):
            with pytest.raises(CompressionError, match=r"a seed must be a whole number from 0 to 2\*\*63 - 1, got"):
                case.make(seed=seed)  # type: ignore[arg-type]
    if not case.make().endless:
        with pytest.raises(CompressionError, match="needs columns"):
            make_measurement(case.name, ROWS)


def test_an_unknown_name_gives_the_nearest_and_all() -> None:
    with pytest.raises(
        CompressionError, match=r"no measurement 'gausian' \(did you mean 'gaussian'\?\); there are gaussian, rade"
    ):
        make_measurement("gausian", 4)
