"""What every compressor promises. A new one is one line in the table ``COMPRESSORS`` and one in ``CASES``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csat_fusion import COMPRESSORS, CompressionError, Compressor, TokenSet, make_compressor

Frame = tuple[torch.Tensor, float, float, float]


@dataclass(frozen=True)
class Case:
    """``means``: a token is the mean of its members, not one of them; ``whole_frames``: no budget below one frame."""

    name: str
    means: bool
    whole_frames: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, budget: int | None, **more: Any) -> Compressor:
        return make_compressor(self.name, budget, **self.options, **more)


CASES = [
    Case("ward", means=True),
    Case("ward", means=True, options={"fast_path": False}),
    Case("runs", means=True, whole_frames=True),
    Case("uniform", means=False),
    Case("identity", means=True),
]
every = pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join([c.name, *c.options]))


def test_every_compressor_of_the_table_is_tested() -> None:
    assert {case.name for case in CASES} == set(COMPRESSORS)


def make_frames(count: int, patches: int, seed: int = 0, width: int = 5, hole: bool = False) -> list[Frame]:
    generator = torch.Generator().manual_seed(seed)
    base, frames, now = torch.randn(patches, width, generator=generator), [], 3.0
    for t in range(count):
        if t % 5 == 4:
            base = torch.randn(patches, width, generator=generator)
        duration = 0.5 + 0.5 * (t % 3)
        frames.append((base + 0.1 * torch.randn(patches, width, generator=generator), now, now + duration, 1.0 + t % 4))
        now += duration + (10.0 if hole and t % 6 == 5 else 0.0)
    return frames


def feed(compressor: Compressor, frames: list[Frame]) -> Compressor:
    for frame in frames:
        compressor.update(*frame)
    return compressor


def same(a: TokenSet, b: TokenSet) -> bool:
    names = ("tokens", "weight", "start_seconds", "end_seconds", "patch")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


@every
@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 25),
    patches=st.integers(1, 6),
    budget=st.integers(1, 40),
    seed=st.integers(0, 999),
    hole=st.booleans(),
)
def test_budget_weights_spans_and_assignment_after_every_frame(
    case: Case, count: int, patches: int, budget: int, seed: int, hole: bool
) -> None:
    frames = make_frames(count, patches, seed, hole=hole)
    limit: int | None = budget
    if case.name == "identity":
        limit = None
    elif case.whole_frames:
        limit = max(budget, patches)
    compressor = case.make(limit, keep_assignment=True)
    assert compressor.budget == limit
    for t, frame in enumerate(frames):
        compressor.update(*frame)
        seen = frames[: t + 1]
        n = patches * len(seen)
        got, assignment = compressor.result(), compressor.assignment()
        if limit is not None:
            assert len(got) <= limit
        if compressor.exact_budget or (case.whole_frames and patches == 1):
            assert len(got) == (n if limit is None else min(n, limit))
        weights = np.repeat([w for *_, w in seen], patches)
        assert got.total_weight == pytest.approx(weights.sum(), rel=1e-6)
        assert got.span == (seen[0][1], max(end for _, _, end, _ in seen))
        for _, start, end, _ in seen:  # no moment that was given goes uncovered
            for moment in (start, (start + end) / 2, np.nextafter(end, 0)):
                assert bool(((got.start_seconds <= moment) & (moment < got.end_seconds)).any())
        assert assignment.shape == (n,)
        assert assignment.min() >= -1
        if (assignment >= 0).all():
            assert np.bincount(assignment, weights, minlength=len(got)) == pytest.approx(got.weight.numpy(), rel=1e-6)
    starts, ends = (np.repeat([frame[k] for frame in frames], patches) for k in (1, 2))
    patch = np.tile(np.arange(patches), count)
    rows = torch.cat([frame[0] for frame in frames]).double().numpy()
    for k in range(len(got)):
        mine = assignment == k
        assert mine.any()
        assert got.start_seconds[k].item() == starts[mine].min()
        assert got.end_seconds[k].item() == ends[mine].max()
        shared = set(patch[mine].tolist())
        assert got.patch[k].item() == (shared.pop() if len(shared) == 1 else -1)
        if case.means:
            mean = np.average(rows[mine], axis=0, weights=weights[mine])
            np.testing.assert_allclose(got.tokens[k].double().numpy(), mean, atol=1e-5)
        else:
            assert (np.abs(rows[mine] - got.tokens[k].double().numpy()).max(axis=1) == 0).any()


@every
def test_reading_does_not_disturb_and_gives_copies(case: Case) -> None:
    frames = make_frames(20, 4)
    budget = None if case.name == "identity" else 12
    quiet, watched = case.make(budget), case.make(budget)
    first = None
    for frame in frames:
        quiet.update(*frame)
        watched.update(*frame)
        held = watched.result()
        copy = held.tokens.clone()
        first = first or (held, copy)
        held.tokens.mul_(1.0)
    assert first is not None
    assert torch.equal(first[0].tokens, first[1])
    watched.result().tokens.zero_()
    assert same(quiet.result(), watched.result())


@every
def test_the_number_of_threads_is_as_before(case: Case) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        compressor = feed(case.make(None if case.name == "identity" else 8), make_frames(3, 4))
        assert torch.get_num_threads() == 2
        with pytest.raises(CompressionError):
            compressor.update(torch.zeros(1, 1), 99, 100)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@every
def test_the_input_is_copied(case: Case) -> None:
    compressor = case.make(None if case.name == "identity" else 8)
    tokens = torch.ones(4, 3, requires_grad=True)
    compressor.update(tokens, 0, 1)
    with torch.no_grad():
        tokens.zero_()
    got = compressor.result().tokens
    assert torch.allclose(got, torch.ones_like(got))
    assert not got.requires_grad


@every
def test_reset_starts_afresh(case: Case) -> None:
    budget = None if case.name == "identity" else 8
    used = feed(case.make(budget, keep_assignment=True), make_frames(9, 4, seed=1))
    used.reset()
    with pytest.raises(CompressionError, match="no frame was given yet"):
        used.result()
    other = make_frames(9, 2, seed=2, width=7)  # another P and d, an earlier time
    fresh = feed(case.make(budget, keep_assignment=True), other)
    feed(used, other)
    assert same(used.result(), fresh.result())
    assert (used.assignment() == fresh.assignment()).all()
    assert used.frames_seen == 9


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_type_is_kept_and_few_tokens_stay_as_they_are(case: Case, dtype: torch.dtype) -> None:
    tokens = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    compressor = case.make(6)
    compressor.update(tokens, 0, 1)
    compressor.update(tokens * 2, 1, 2)
    got = compressor.result()
    assert got.dtype == dtype
    order = np.lexsort((got.patch.numpy(), got.start_seconds.numpy()))
    torch.testing.assert_close(got.tokens[torch.from_numpy(order)], torch.cat([tokens, tokens * 2]))


BAD_FRAMES = {
    "no tokens": ((torch.zeros(0, 3), 2, 3), r"got torch\.float32 \[0, 3\]"),
    "no width": ((torch.zeros(4, 0), 2, 3), r"\[4, 0\]"),
    "no matrix": ((torch.zeros(4, 3, 1), 2, 3), r"\[4, 3, 1\]"),
    "whole numbers": ((torch.zeros(4, 3, dtype=torch.int64), 2, 3), r"torch\.int64"),
    "no tensor": ((np.zeros((4, 3)), 2, 3), "got ndarray"),
    "other P": ((torch.zeros(5, 3), 2, 3), "5 tokens, those before it 4"),
    "other width": ((torch.zeros(4, 2), 2, 3), "width 2.*width 3"),
    "other type": ((torch.zeros(4, 3, dtype=torch.float64), 2, 3), r"torch\.float64 .* torch\.float32"),
    "not a number": ((torch.full((4, 3), math.nan), 2, 3), "size nan"),
    "infinite": ((torch.full((4, 3), -math.inf), 2, 3), "size inf"),
    "too large": ((torch.full((4, 3), 1e30), 2, 3), r"size 1e\+30; values must be finite and at most 1e\+15"),
    "back in time": ((torch.zeros(4, 3), 0.5, 3), r"one at 0\.5 s after one at 1\.0 s"),
    "no duration": ((torch.zeros(4, 3), 2, 2), r"\[2, 2\)"),
    "time not a number": ((torch.zeros(4, 3), math.nan, 2), r"\[nan, 2\)"),
    "endless": ((torch.zeros(4, 3), 2, math.inf), r"\[2, inf\)"),
    "no weight": ((torch.zeros(4, 3), 2, 3, 0), "above 0, got 0"),
    "weight not a number": ((torch.zeros(4, 3), 2, 3, math.nan), "above 0, got nan"),
}


@every
@pytest.mark.parametrize("bad", BAD_FRAMES)
def test_a_bad_frame_is_refused_and_the_stream_goes_on(case: Case, bad: str) -> None:
    frame, message = BAD_FRAMES[bad]
    budget = None if case.name == "identity" else 8
    good = [(torch.zeros(4, 3), 0.0, 1.0, 1.0), (torch.ones(4, 3), 1.0, 2.0, 1.0), (torch.ones(4, 3), 2.0, 3.0, 1.0)]
    compressor = feed(case.make(budget), good[:2])
    before = compressor.result()
    with pytest.raises(CompressionError, match=message):
        compressor.update(*frame)  # type: ignore[arg-type]
    assert same(compressor.result(), before)
    assert same(feed(compressor, good[2:]).result(), feed(case.make(budget), good).result())


@every
def test_bad_options_are_named(case: Case) -> None:
    for budget in (0, -3, 2.5, True):
        with pytest.raises(CompressionError, match=f"at least 1, got {budget!r}"):
            case.make(budget)  # type: ignore[arg-type]
    with pytest.raises(CompressionError, match=r"gap_seconds must be at least 0, got -1"):
        case.make(4, gap_seconds=-1)
    with pytest.raises(CompressionError, match=r"no option 'keep_asignment' \(did you mean 'keep_assignment'\?\)"):
        case.make(4, keep_asignment=True)
    with pytest.raises(CompressionError, match="kept only by a compressor made with keep_assignment=True"):
        feed(case.make(8), make_frames(1, 2)).assignment()
    with pytest.raises(CompressionError, match="no frame was given yet"):
        case.make(4, keep_assignment=True).assignment()
    if not case.make(4).unlimited:
        with pytest.raises(CompressionError, match="needs a budget of at least 1 token, got None"):
            case.make(None)


def test_an_unknown_name_gives_the_nearest_and_all() -> None:
    with pytest.raises(CompressionError, match=r"no compressor 'word' \(did you mean 'ward'\?\); there are ward, runs"):
        make_compressor("word", 4)


def test_identity_refuses_the_frame_beyond_its_budget_and_keeps_what_it_has() -> None:
    compressor = feed(make_compressor("identity", 9), make_frames(2, 4))
    with pytest.raises(CompressionError, match="there are 12, the budget is 9"):
        compressor.update(torch.zeros(4, 5), 99, 100)
    assert len(compressor.result()) == 8


def test_uniform_stays_even() -> None:
    compressor = make_compressor("uniform", 8)
    for t in range(1000):
        compressor.update(torch.full((1, 2), float(t)), t, t + 1)
        got = compressor.result()
        assert len(got) == min(t + 1, 8)
        duration = got.end_seconds - got.start_seconds
        assert float(duration.max()) <= 2 * math.ceil((t + 1) / 4)
    assert got.total_weight == 1000


def test_ward_keeps_more_of_an_event_than_evenly_spread_frames() -> None:
    """What the default is for: a short event in a long static scene is still there at a thirty-second of the tokens."""
    generator = torch.Generator().manual_seed(0)
    scene, event = torch.randn(16, 24, generator=generator), torch.randn(3, 24, generator=generator)
    frames = []
    for t in range(64):
        tokens = scene + 0.05 * torch.randn(16, 24, generator=generator)
        if 37 <= t < 39:
            tokens[5:8] = event
        frames.append((tokens, t * 0.5, t * 0.5 + 0.5, 1.0))
    found = {}
    for name in ("ward", "uniform"):
        got = feed(make_compressor(name, 32), frames).result()
        nearest = torch.cdist(event, got.tokens).min(dim=1)
        found[name] = float(nearest.values.max())
        if name == "ward":
            for k in nearest.indices:
                assert 18.0 <= got.start_seconds[k] <= 18.5
                assert 19.5 <= got.end_seconds[k] <= 20.0
    assert found["ward"] < 0.5
    assert found["uniform"] > 2.0
