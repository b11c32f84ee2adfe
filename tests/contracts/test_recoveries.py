"""What every recovery promises: sparse codes come back where theory says so, for every kind of measurement.

The condition of J. A. Tropp ("Greed is good: algorithmic results for sparse approximation", 2004; "Just relax: convex
programming methods for identifying sparse signals in noise", 2006): with S the support, every code on S is found by
orthogonal matching pursuit, and every minimum of the l1 objective keeps to S, where
``max_{j not in S} |pinv(A_S) a_j|_1 < 1``. On S, the minimum is off by at most ``threshold * |inv(A_S^T A_S)|_inf``.
Orthogonal least squares keeps the promise too (C. Soussen et al., "Joint k-step analysis of orthogonal matching pursuit
and orthogonal least squares", 2013, arXiv 1111.0522). All hold for rows of channels together, with their norms in place
of sizes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from csat_fusion.dictionaries.base import make_dictionary
from csat_fusion.errors import CompressionError
from csat_fusion.measurements.base import MEASUREMENTS, make_measurement
from csat_fusion.recovery.base import RECOVERIES, Recovered, recover

LENGTH, ROWS, SPARSITY, CHANNELS = 64, 48, 3, 4
THRESHOLD = 0.02


@dataclass(frozen=True)
class Case:
    """``pursuit``: chooses atoms one by one; ``joint``: all channels on the same atoms."""

    name: str
    pursuit: bool = False
    joint: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def run(self, y: Tensor, operator: Tensor, **change: Any) -> Recovered:
        level: dict[str, Any] = {"sparsity": SPARSITY} if self.pursuit else {"threshold": THRESHOLD}
        return recover(self.name, y, operator, **{**level, **self.options, **change})


_PATIENT = {"steps": 30000, "tolerance": 1e-8}
CASES = [
    Case("ista", options=_PATIENT),
    Case("fista", options=_PATIENT),
    Case("group-ista", joint=True, options=_PATIENT),
    Case("group-ista", joint=True, options={**_PATIENT, "accelerate": True}),
    Case("omp", pursuit=True),
    Case("somp", pursuit=True, joint=True),
    Case("omp", pursuit=True, options={"selection": "residual"}),
    Case("somp", pursuit=True, joint=True, options={"selection": "residual"}),
]
every = pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join([c.name, *c.options]))


def test_every_recovery_of_the_table_is_tested() -> None:
    assert {case.name for case in CASES} == set(RECOVERIES)


def operator_of(measurement: str, dictionary: str, seed: int) -> Tensor:
    """Phi Psi, ``[m, K]``. Groups of merged tokens cannot be told apart inside, so there the atoms are the groups."""
    if measurement == "merging":
        assignment = torch.randperm(LENGTH, generator=torch.Generator().manual_seed(seed)) % ROWS
        phi = make_measurement("merging", ROWS, LENGTH, assignment=assignment).matrix()
        psi = torch.nn.functional.one_hot(assignment, ROWS).double()
        return phi @ (psi / psi.norm(dim=0))
    phi = make_measurement(measurement, ROWS, LENGTH, seed=seed).matrix().detach().double()
    return phi @ make_dictionary(dictionary, LENGTH).matrix().detach().double()


def sparse_code(atoms: int, seed: int, joint: bool) -> Tensor:
    """Sizes from 1 to 2, so that a support can be read off; one support for all channels where ``joint``."""
    generator = torch.Generator().manual_seed(seed)
    code = torch.zeros(atoms, CHANNELS, dtype=torch.float64)
    for c in range(CHANNELS):
        support = torch.randperm(atoms, generator=torch.Generator().manual_seed(seed if joint else seed + 1000 * c))
        values = 1 + torch.rand(SPARSITY, generator=generator, dtype=torch.float64)
        code[support[:SPARSITY], c] = values * torch.where(torch.rand(SPARSITY, generator=generator) < 0.5, -1.0, 1.0)
    return code


def condition(operator: Tensor, support: Tensor) -> tuple[float, float]:
    """Tropp's exact recovery coefficient, and the factor by which an l1 minimum is off."""
    chosen, others = operator[:, support], operator[:, ~support]
    coefficient = (torch.linalg.pinv(chosen) @ others).abs().sum(dim=0).max()
    factor = torch.linalg.inv(chosen.T @ chosen).abs().sum(dim=1).max()
    return float(coefficient), float(factor)


@every
@pytest.mark.parametrize("dictionary", ["identity", "dct", "haar"])
@pytest.mark.parametrize("measurement", MEASUREMENTS)
def test_sparse_codes_come_back_where_theory_promises_it(case: Case, measurement: str, dictionary: str) -> None:
    promised = 0
    for seed in range(3):
        operator = operator_of(measurement, dictionary, seed)
        if case.pursuit:  # the condition speaks of unit atoms; the code of those is as sparse
            operator = operator / operator.norm(dim=0)
        code = sparse_code(operator.shape[1], seed, case.joint)
        got = case.run(operator @ code, operator)
        for c in range(CHANNELS):
            coefficient, factor = condition(operator, code[:, c] != 0)
            if coefficient >= 1:
                continue
            promised += 1
            if case.pursuit:
                torch.testing.assert_close(got.code[:, c], code[:, c], rtol=0, atol=1e-10)
                assert got.iterations[c] == SPARSITY
                assert got.residual[c] < 1e-10
            else:
                off = (got.code - code).norm(dim=1) if case.joint else (got.code - code)[:, c].abs()
                assert off.max() <= THRESHOLD * factor + 1e-5
                assert (got.code[code[:, c] == 0, c].abs() < 1e-5).all()
            assert got.converged[c]
    assert promised >= 6  # of 12: else the test would say nothing


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(4, 24),
    atoms=st.integers(2, 40),
    sparsity=st.integers(1, 4),
    name=st.sampled_from(["omp", "somp"]),
    selection=st.sampled_from(["correlation", "residual"]),
)
def test_pursuits_find_every_code_that_theory_promises(
    seed: int, rows: int, atoms: int, sparsity: int, name: str, selection: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    operator = torch.randn(rows, atoms, generator=generator, dtype=torch.float64)
    operator /= operator.norm(dim=0)
    sparsity = min(sparsity, rows, atoms)
    code = torch.zeros(atoms, 2, dtype=torch.float64)
    support = torch.randperm(atoms, generator=generator)[:sparsity]
    code[support] = torch.randn(sparsity, 2, generator=generator, dtype=torch.float64)
    chosen = code.any(dim=1)
    got = recover(name, operator @ code, operator, sparsity=sparsity, selection=selection)
    assert torch.isfinite(got.code).all()
    assert ((got.code != 0).sum(dim=0) <= sparsity).all()
    if chosen.all() or condition(operator, chosen)[0] < 0.999:
        torch.testing.assert_close(got.code, code, rtol=0, atol=1e-8)


@every
def test_shapes_and_types(case: Case) -> None:
    operator = operator_of("gaussian", "dct", 0).float()
    y = torch.randn(2, 1, ROWS, 5, generator=torch.Generator().manual_seed(0))
    got = case.run(y, operator.expand(1, 3, *operator.shape), **({} if case.pursuit else {"steps": 5}))
    assert got.code.shape == (2, 3, LENGTH, 5)
    assert got.code.dtype == got.residual.dtype == torch.float32
    assert got.iterations.shape == got.converged.shape == got.residual.shape == (2, 3, 5)
    assert got.iterations.dtype == torch.int64
    assert got.converged.dtype == torch.bool
    torch.testing.assert_close(got.residual, (y - operator @ got.code).norm(dim=-2))
    if case.joint:
        assert torch.equal(got.iterations, got.iterations[..., :1].expand(2, 3, 5))
        rows = (got.code != 0).any(dim=-1)
        assert torch.equal((got.code != 0).all(dim=-1), rows)


@every
def test_nothing_in_gives_nothing_out_and_the_same_again_gives_the_same(case: Case) -> None:
    operator = operator_of("rademacher", "identity", 0)
    got = case.run(torch.zeros(ROWS, 3, dtype=torch.float64), operator)
    assert (got.code == 0).all()
    assert got.converged.all()
    y = torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state = torch.get_rng_state()
    options: dict[str, Any] = {} if case.pursuit else {"steps": 50}
    assert torch.equal(case.run(y, operator, **options).code, case.run(y, operator, **options).code)
    assert torch.equal(torch.get_rng_state(), state)


@every
@pytest.mark.parametrize("size", [1e-12, 1e12])
def test_very_small_and_very_large_values(case: Case, size: float) -> None:
    operator = operator_of("gaussian", "identity", 0)
    y = operator @ sparse_code(LENGTH, 0, joint=True)
    options: dict[str, Any] = {} if case.pursuit else {"threshold": 0.1 * size, "steps": 50}
    plain: dict[str, Any] = {} if case.pursuit else {"threshold": 0.1, "steps": 50}
    got, want = case.run(y * size, operator, **options), case.run(y, operator, **plain)
    torch.testing.assert_close(got.code / size, want.code, rtol=1e-6, atol=1e-9)


@every
def test_bad_input_is_named(case: Case) -> None:
    operator = operator_of("gaussian", "identity", 0)
    y = torch.ones(ROWS, 2, dtype=torch.float64)
    with pytest.raises(CompressionError, match="y must be finite, got nan"):
        case.run(y * math.nan, operator)
    with pytest.raises(CompressionError, match="y has 5 measurements, the operator 48 rows"):
        case.run(y[:5], operator)
    with pytest.raises(CompressionError, match=r"has no option 'tolerence' \(did you mean 'tolerance'\?\)"):
        case.run(y, operator, tolerence=0.1)
    needed = "sparsity" if case.pursuit else "threshold"
    with pytest.raises(CompressionError, match=f"needs the option '{needed}'"):
        recover(case.name, y, operator)


def test_an_unknown_name_gives_the_nearest_and_all() -> None:
    with pytest.raises(CompressionError, match=r"no recovery 'samp' \(did you mean 'somp'\?\); there are ista, fista"):
        recover("samp", torch.ones(2, 1), torch.ones(2, 3))
