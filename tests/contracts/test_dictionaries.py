"""What every dictionary promises. A new one is one line in the table ``DICTIONARIES`` and one in ``CASES``."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csat_fusion.dictionaries.base import DICTIONARIES, Dictionary, make_dictionary
from csat_fusion.errors import CompressionError

LENGTH = 13


@dataclass(frozen=True)
class Case:
    """``fewer``: K may be below L; ``least``: the shortest signal; ``options`` may depend on the length."""

    name: str
    fewer: bool = True
    least: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, length: int = LENGTH, atoms: int | None = None, **more: Any) -> Dictionary:
        options = {name: value(length) if callable(value) else value for name, value in self.options.items()}
        return make_dictionary(self.name, length, atoms, **options, **more)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


CASES = [
    Case("identity", fewer=False),
    Case("dct"),
    Case("haar"),
    Case("learnable-haar"),
    Case("learnable-haar", options={"shared": False}),
    Case("steps"),
    Case("spectral"),
    Case("graph", fewer=False, least=2, options={"features": lambda length: normal(length, 4)}),
    Case("learned"),
    Case("learned", options={"init": None}),
]
every = pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join([c.name, *c.options]))


def disturb(dictionary: Dictionary) -> Dictionary:
    """In float64, its parameters somewhere that training could have brought them."""
    dictionary = dictionary.double()
    with torch.no_grad():
        for k, parameter in enumerate(dictionary.parameters()):
            parameter += 0.3 * normal(*parameter.shape, seed=k + 7)
    return dictionary


def test_every_dictionary_of_the_table_is_tested() -> None:
    assert {case.name for case in CASES} == set(DICTIONARIES)


@every
@settings(max_examples=20, deadline=None)
@given(length=st.integers(1, 40), share=st.floats(0, 1), lead=st.sampled_from([(), (2,), (2, 3)]))
def test_synthesis_and_analysis_are_products_with_the_matrix(
    case: Case, length: int, share: float, lead: tuple[int, ...]
) -> None:
    length = max(length, case.least)
    dictionary = disturb(case.make(length, max(1, round(share * length)) if case.fewer else None))
    matrix = dictionary.matrix()
    assert matrix.shape == (dictionary.length, dictionary.atoms)
    assert matrix.shape[0] == length
    code, signal = normal(*lead, dictionary.atoms, 3), normal(*lead, length, 3, seed=1)
    near = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(dictionary.synthesize(code), matrix @ code, **near)
    torch.testing.assert_close(dictionary.analyze(signal), matrix.mT @ signal, **near)


@every
@pytest.mark.parametrize("length", [2, 3, 8, 13, 50])
def test_atoms_have_unit_norm_and_are_orthonormal_where_it_says_so(case: Case, length: int) -> None:
    dictionary = disturb(case.make(length))
    matrix = dictionary.matrix()
    assert bool(torch.isfinite(matrix).all())
    torch.testing.assert_close(matrix.norm(dim=0), torch.ones(dictionary.atoms, dtype=torch.float64))
    if dictionary.orthonormal:
        one = torch.eye(dictionary.atoms, dtype=torch.float64)
        torch.testing.assert_close(matrix.T @ matrix, one, rtol=0, atol=1e-9)
        signal = normal(2, length, 3)
        torch.testing.assert_close(dictionary.synthesize(dictionary.analyze(signal)), signal)
        if case.fewer and length > 2:
            fewer = case.make(length, length - 2).double()
            code = normal(length - 2, 3)
            torch.testing.assert_close(fewer.analyze(fewer.synthesize(code)), code)
    assert int(torch.linalg.matrix_rank(matrix)) == length  # every signal can be made of them


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_type_is_kept_and_sums_are_wide(case: Case, dtype: torch.dtype) -> None:
    dictionary = case.make()
    matrix = dictionary.matrix().detach().double()
    code, signal = normal(2, dictionary.atoms, 3).to(dtype), normal(2, LENGTH, 3).to(dtype)
    for autocast in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            got = dictionary.synthesize(code), dictionary.analyze(signal)
        for one, other in zip(got, (matrix @ code.double(), matrix.T @ signal.double()), strict=True):
            assert one.dtype == dtype
            size = float(other.abs().max())
            assert float((one.double() - other).detach().abs().max()) <= size * max(torch.finfo(dtype).eps, 1e-6)


@every
def test_gradients_reach_signals_codes_and_parameters(case: Case) -> None:
    dictionary = disturb(case.make(6))
    code, signal = normal(dictionary.atoms, 2).requires_grad_(), normal(6, 2).requires_grad_()
    assert torch.autograd.gradcheck(dictionary.synthesize, code)
    assert torch.autograd.gradcheck(dictionary.analyze, signal)
    names = [name for name, _ in dictionary.named_parameters()]
    values = [parameter.detach().clone().requires_grad_() for parameter in dictionary.parameters()]

    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = dictionary

        def forward(self) -> tuple[torch.Tensor, ...]:
            return self.inner.synthesize(code.detach()), self.inner.analyze(signal.detach()), self.inner.matrix()

    def both(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        state = {f"inner.{name}": value for name, value in zip(names, given, strict=True)}
        out: tuple[torch.Tensor, ...] = torch.func.functional_call(Both(), state, ())
        return out

    if values:
        assert torch.autograd.gradcheck(both, values)
        sum(part.square().sum() for part in both(*values)[:2]).backward()  # type: ignore[union-attr]
        assert all(value.grad is not None and bool((value.grad != 0).any()) for value in values)


@every
def test_it_is_the_same_every_time_and_leaves_torch_s_generator_alone(case: Case) -> None:
    before = torch.get_rng_state()
    assert torch.equal(case.make().matrix(), case.make().matrix())
    assert torch.equal(torch.get_rng_state(), before)


@every
def test_it_can_be_copied_saved_and_exported(case: Case) -> None:
    class Both(torch.nn.Module):
        def __init__(self, inner: Dictionary) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, signal: torch.Tensor) -> torch.Tensor:
            return self.inner.synthesize(self.inner.analyze(signal))

    dictionary, signal = disturb(case.make()), normal(2, LENGTH, 3)
    module, again = Both(dictionary), Both(case.make().double())
    again.load_state_dict(module.state_dict())
    assert torch.equal(again(signal), module(signal))
    assert torch.equal(copy.deepcopy(module)(signal), module(signal))
    exported = torch.export.export(module, (signal,)).module()
    torch.testing.assert_close(exported(signal), module(signal))
    matrix = dictionary.matrix()
    torch.testing.assert_close(module(signal), matrix @ (matrix.mT @ signal))  # export left no trace


@every
def test_results_are_on_the_device_of_the_signal(case: Case) -> None:
    """The device ``meta`` computes no values, but says where a value would have been computed."""
    dictionary = case.make()
    code, signal = torch.zeros(dictionary.atoms, 3, device="meta"), torch.zeros(LENGTH, 3, device="meta")
    if dictionary.state_dict():
        with pytest.raises(CompressionError, match="dictionary is on cpu, a signal is on meta"):
            dictionary.analyze(signal)
        dictionary = dictionary.to("meta")
    assert dictionary.synthesize(code).device.type == "meta"
    assert dictionary.analyze(signal).device.type == "meta"


@every
def test_bad_input_is_refused(case: Case) -> None:
    dictionary = case.make()
    for bad, message in (
        (torch.zeros(LENGTH, 3, dtype=torch.int64), rf"\[.., 13, d\], got torch\.int64 \[{LENGTH}, 3\]"),
        (torch.zeros(LENGTH), r"got torch\.float32 \[13\]"),
        (torch.zeros(LENGTH + 1, 3), r"got torch\.float32 \[14, 3\]"),
        (None, "got NoneType"),
    ):
        with pytest.raises(CompressionError, match=message):
            dictionary.analyze(bad)  # type: ignore[arg-type]
    with pytest.raises(CompressionError, match=rf"a code must be floating point \[.., {dictionary.atoms}, d\]"):
        dictionary.synthesize(torch.zeros(dictionary.atoms + 1, 3))
    for value in (0, -2, 1.5, True):
        with pytest.raises(CompressionError, match=f"length of a dictionary must be .* at least 1, got {value!r}"):
            make_dictionary(case.name, value)  # type: ignore[arg-type]
        with pytest.raises(CompressionError, match=f"got (atoms=)?{value!r}"):
            case.make(LENGTH, value)  # type: ignore[arg-type]
    with pytest.raises(CompressionError, match="no option 'wobble'"):
        case.make(wobble=1)


def test_an_unknown_name_gives_the_nearest_and_all() -> None:
    with pytest.raises(
        CompressionError, match=r"no dictionary 'step' \(did you mean 'steps'\?\); there are identity, dct, haar"
    ):
        make_dictionary("step", 4)
