"""What every compressor promises. A new one is one line in the table ``COMPRESSORS`` and one in ``CASES``."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from csat_fusion import COMPRESSORS, CompressionError, Compressor, TokenSet, make_compressor
from csat_fusion.compressors.budget import Budget, Cosine, Ratio

Frame = tuple[torch.Tensor, float, float, float]


WIDTH = 5  # of the tokens in all tests but where said, so that an option may be a tensor of that width


@dataclass(frozen=True)
class Case:
    """What a compressor says of itself.

    ``means``: a token is the mean of its members, or one of them where False, or neither where None; ``causal``: reads
    each frame once; ``whole_frames``: no budget below one frame; ``fixed_width``: an option fixes the width of the
    tokens at ``WIDTH``.
    """

    name: str
    means: bool | None
    causal: bool = False
    whole_frames: bool = False
    fixed_width: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, budget: Budget | str, **more: Any) -> Compressor:
        return make_compressor(self.name, budget, **self.options, **more)

    def budget(self, tokens: int, patches: int = 1) -> Budget:
        """``tokens``, or the nearest that this one can keep to."""
        if self.name == "identity":
            return None
        return max(tokens, patches) if self.whole_frames else tokens


CASES = [
    Case("ward", means=True, causal=True),
    Case("ward", means=True, causal=True, options={"fast_path": "mean"}),
    Case("ward-batched", means=True, causal=True),
    Case("runs", means=True, causal=True, whole_frames=True),
    Case("uniform", means=False, causal=True),
    Case("identity", means=True, causal=True),
    Case("tome", means=True),
    Case("tome", means=True, options={"order": "frame", "schedule": "constant"}),
    Case("floc", means=True),
    Case("floc", means=False, options={"means": False, "window_frames": 4}),
    Case("kmeans", means=True),
    Case("dycoke", means=True),
    Case("dycoke", means=False, options={"means": False, "ranking": "frame"}),
    Case("visionzip", means=True),
    Case("query", means=True, fixed_width=True, options={"query": torch.ones(WIDTH)}),
    Case("patch-runs", means=True, causal=True),
    Case("evs", means=False),
    Case("evs", means=True, options={"means": True}),
    Case("random", means=False),
    Case("segment-mean", means=True),
    Case("spatial-pool", means=True),
    Case("dct", means=None),
    Case("haar", means=True),
    Case("dfmr", means=True),
    Case("compose", means=True, causal=True),
    Case("compose", means=False, options={"first": "evs", "second": "random", "share": 0.3}),
]


def label(case: Case) -> str:
    return "-".join([case.name, *case.options])


every = pytest.mark.parametrize("case", CASES, ids=label)
endless = pytest.mark.parametrize("case", [c for c in CASES if c.causal and c.name != "identity"], ids=label)


def test_every_compressor_of_the_table_is_tested() -> None:
    assert {case.name for case in CASES} == set(COMPRESSORS)


def make_frames(count: int, patches: int, seed: int = 0, width: int = WIDTH, hole: bool = False) -> list[Frame]:
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


def check(case: Case, compressor: Compressor, frames: list[Frame], limit: int) -> None:
    """All that holds of a result after any frame."""
    patches, n = len(frames[0][0]), len(frames) * len(frames[0][0])
    got, assignment = compressor.result(), compressor.assignment()
    assert len(got) <= limit
    exact = compressor.exact_budget and not isinstance(compressor.budget, Cosine)  # of a fidelity, limit is n
    if exact or (case.whole_frames and patches == 1):
        assert len(got) == min(n, limit)
    assert bool(torch.isfinite(got.tokens).all())
    weights = np.repeat([w for *_, w in frames], patches)
    assert got.total_weight == pytest.approx(weights.sum(), rel=1e-6)
    assert got.span == (frames[0][1], max(end for _, _, end, _ in frames))
    assert (got.start_seconds.diff() >= 0).all()
    for _, start, end, _ in frames:  # no moment that was given goes uncovered
        for moment in (start, (start + end) / 2, np.nextafter(end, 0)):
            assert bool(((got.start_seconds <= moment) & (moment < got.end_seconds)).any())
    assert assignment.shape == (n,)
    assert assignment.dtype == torch.int64
    assert assignment.device.type == "cpu"
    assert assignment.min() >= 0
    assert np.bincount(assignment, weights, minlength=len(got)) == pytest.approx(got.weight.numpy(), rel=1e-6)


def check_members(case: Case, compressor: Compressor, frames: list[Frame]) -> None:
    """Each token is what its members make of it."""
    got, assignment = compressor.result(), compressor.assignment().numpy()
    patches = len(frames[0][0])
    weights, starts, ends = (np.repeat([frame[k] for frame in frames], patches) for k in (3, 1, 2))
    patch = np.tile(np.arange(patches), len(frames))
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
        elif case.means is False:
            assert (np.abs(rows[mine] - got.tokens[k].double().numpy()).max(axis=1) == 0).any()


@every
@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 25),
    patches=st.integers(1, 6),
    budget=st.integers(1, 40),
    seed=st.integers(0, 999),
    hole=st.booleans(),
)
def test_budget_weights_spans_and_assignment(
    case: Case, count: int, patches: int, budget: int, seed: int, hole: bool
) -> None:
    frames = make_frames(count, patches, seed, hole=hole)
    limit = case.budget(budget, patches)
    compressor = case.make(limit, keep_assignment=True)
    assert compressor.budget == limit
    assert compressor.causal == case.causal
    for t, frame in enumerate(frames):
        compressor.update(*frame)
        if case.causal or t % 9 == 8:  # the others compress all again when read
            check(case, compressor, frames[: t + 1], patches * (t + 1) if limit is None else int(limit))  # type: ignore[arg-type]
    check(case, compressor, frames, patches * count if limit is None else int(limit))  # type: ignore[arg-type]
    check_members(case, compressor, frames)


@every
@settings(max_examples=8, deadline=None)
@given(
    count=st.integers(1, 25),
    patches=st.integers(1, 6),
    share=st.sampled_from([1.0, 0.5, 0.1, 1 / 64]),
    seed=st.integers(0, 99),
)
def test_a_ratio_holds_after_every_frame(case: Case, count: int, patches: int, share: float, seed: int) -> None:
    frames = make_frames(count, patches, seed)
    compressor = case.make(Ratio(1.0 if case.name == "identity" else share), keep_assignment=True)
    for t, frame in enumerate(frames):
        compressor.update(*frame)
        if case.causal or t % 9 == 8 or t == count - 1:
            limit = compressor.budget.limit(patches * (t + 1))  # type: ignore[union-attr]
            check(case, compressor, frames[: t + 1], max(limit, patches) if case.whole_frames else limit)
    check_members(case, compressor, frames)


@every
@settings(max_examples=8, deadline=None)
@given(
    count=st.integers(1, 12),
    patches=st.integers(1, 4),
    least=st.sampled_from([0.3, 0.95, 1.0]),
    seed=st.integers(0, 99),
)
def test_a_fidelity_holds_or_is_refused(case: Case, count: int, patches: int, least: float, seed: int) -> None:
    if not case.make(4).by_cosine:
        with pytest.raises(CompressionError, match=r"cannot keep to a fidelity \(Cosine\(least=0\.95\)\)"):
            case.make("cosine 0.95")
        return
    frames = make_frames(count, patches, seed)
    frames[0][0][0] = 0.0  # only a token of zero norm may stand for it
    compressor = feed(case.make(Cosine(least), keep_assignment=True), frames)
    check(case, compressor, frames, count * patches)
    rows = torch.cat([frame[0] for frame in frames]).double()
    kept = compressor.result().tokens.double()[compressor.assignment()]
    cosine = torch.cosine_similarity(rows[1:], kept[1:], dim=1)
    assert min([1.0, *cosine.tolist()]) >= least - 1e-6
    assert float(kept[0].norm()) == 0


@every
@pytest.mark.parametrize("patches", [1, 4])
@pytest.mark.parametrize("kind", ["zero", "equal", "one of two", "one direction", "tiny", "huge"])
def test_tokens_with_little_to_tell_them_apart(case: Case, kind: str, patches: int) -> None:
    """Equal tokens, zeros, the smallest and largest sizes: the budget is met and nothing becomes NaN."""
    step = torch.arange(9.0).view(9, 1, 1).expand(9, patches, WIDTH)
    tokens = {
        "zero": 0.0 * step,
        "equal": 0.0 * step + 0.1,
        "one of two": (step % 2) * 0.3,
        "one direction": step - 4,
        "tiny": (step + 1) * 1e-30,
        "huge": (step - 4) / 4 * 1e15,
    }[kind]
    frames = [(frame.clone(), float(t), t + 1.0, 1.0) for t, frame in enumerate(tokens)]
    for tokens_kept in (1, 2, 7):
        budget = case.budget(tokens_kept, patches)
        compressor = feed(case.make(budget, keep_assignment=True), frames)
        check(case, compressor, frames, budget if isinstance(budget, int) else 9 * patches)
        if kind not in ("tiny", "huge"):  # sizes that its tolerance is not made for
            check_members(case, compressor, frames)


@every
def test_reading_does_not_disturb_and_gives_copies(case: Case) -> None:
    frames = make_frames(20, 4)
    budget = case.budget(12)
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
        compressor = feed(case.make(case.budget(8)), make_frames(3, 4))
        assert torch.get_num_threads() == 2
        with pytest.raises(CompressionError):
            compressor.update(torch.zeros(1, 1), 99, 100)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@every
def test_the_input_is_copied(case: Case) -> None:
    compressor = case.make(case.budget(8))
    tokens = torch.ones(4, WIDTH, requires_grad=True)
    compressor.update(tokens, 0, 1)
    with torch.no_grad():
        tokens.zero_()
    got = compressor.result().tokens
    assert torch.allclose(got, torch.ones_like(got))
    assert not got.requires_grad


@every
def test_reset_starts_afresh(case: Case) -> None:
    budget = case.budget(8)
    used = feed(case.make(budget, keep_assignment=True), make_frames(9, 4, seed=1))
    used.reset()
    with pytest.raises(CompressionError, match="no frame was given yet"):
        used.result()
    other = make_frames(9, 2, seed=2, width=WIDTH if case.fixed_width else 7)  # another P and d, an earlier time
    fresh = feed(case.make(budget, keep_assignment=True), other)
    feed(used, other)
    assert same(used.result(), fresh.result())
    assert (used.assignment() == fresh.assignment()).all()
    assert used.frames_seen == 9


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_type_is_kept_and_few_tokens_stay_as_they_are(case: Case, dtype: torch.dtype) -> None:
    tokens = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0)).to(dtype)
    compressor = case.make(6)
    compressor.update(tokens, 0, 1)
    compressor.update(tokens * 2, 1, 2)
    got = compressor.result()
    assert got.dtype == dtype
    order = np.lexsort((got.patch.numpy(), got.start_seconds.numpy()))
    torch.testing.assert_close(got.tokens[torch.from_numpy(order)], torch.cat([tokens, tokens * 2]))


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_compressed_as_float32_is(case: Case, dtype: torch.dtype) -> None:
    frames = [(f[0].to(dtype), *f[1:]) for f in make_frames(12, 4, seed=5)]
    half = feed(case.make(case.budget(9), keep_assignment=True), frames)
    wide = feed(case.make(case.budget(9), keep_assignment=True), [(f[0].float(), *f[1:]) for f in frames])
    assert torch.equal(half.assignment(), wide.assignment())
    assert torch.equal(half.result().tokens, wide.result().tokens.to(dtype))


@every
def test_the_same_stream_gives_the_same_and_no_global_state_is_touched(case: Case) -> None:
    frames = make_frames(15, 4, seed=6)
    before = torch.get_rng_state()
    first = feed(case.make(case.budget(9)), frames).result()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12345)  # another state of the global generator
    try:
        assert same(feed(case.make(case.budget(9)), frames).result(), first)
    finally:
        torch.set_rng_state(before)


@endless
def test_what_reads_each_frame_once_keeps_a_state_of_one_size(case: Case) -> None:
    compressor = case.make(case.budget(8))
    sizes = []
    for t in range(240):
        tokens = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(t))
        compressor.update(tokens, t, t + 1)
        if t % 60 == 59:
            sizes.append(len(pickle.dumps(compressor)))
    assert max(sizes[1:]) <= 1.05 * sizes[0]


@every
@pytest.mark.skipif(not torch.cuda.is_available(), reason="not here: needs a GPU")
def test_on_a_gpu_the_result_is_there_and_as_on_the_host(case: Case) -> None:
    frames = make_frames(12, 4, seed=7)
    host = feed(case.make(case.budget(9), keep_assignment=True), frames)
    there = feed(case.make(case.budget(9), keep_assignment=True), [(f[0].cuda(), *f[1:]) for f in frames])
    got = there.result()
    assert got.device.type == "cuda"
    assert there.assignment().device.type == "cpu"
    assert torch.equal(there.assignment(), host.assignment())
    torch.testing.assert_close(got.tokens.cpu(), host.result().tokens)


BAD_FRAMES = {
    "no tokens": ((torch.zeros(0, WIDTH), 2, 3), r"got torch\.float32 \[0, 5\]"),
    "no width": ((torch.zeros(4, 0), 2, 3), r"\[4, 0\]"),
    "no matrix": ((torch.zeros(4, WIDTH, 1), 2, 3), r"\[4, 5, 1\]"),
    "whole numbers": ((torch.zeros(4, WIDTH, dtype=torch.int64), 2, 3), r"torch\.int64"),
    "no tensor": ((np.zeros((4, WIDTH)), 2, 3), "got ndarray"),
    "other P": ((torch.zeros(5, WIDTH), 2, 3), "5 tokens, those before it 4"),
    "other width": ((torch.zeros(4, 2), 2, 3), "width 2.*width 5"),
    "other type": ((torch.zeros(4, WIDTH, dtype=torch.float64), 2, 3), r"torch\.float64 .* torch\.float32"),
    "not a number": ((torch.full((4, WIDTH), math.nan), 2, 3), "size nan"),
    "infinite": ((torch.full((4, WIDTH), -math.inf), 2, 3), "size inf"),
    "too large": ((torch.full((4, WIDTH), 1e30), 2, 3), r"size 1e\+30; values must be finite and at most 1e\+15"),
    "back in time": ((torch.zeros(4, WIDTH), 0.5, 3), r"one at 0\.5 s after one at 1\.0 s"),
    "no duration": ((torch.zeros(4, WIDTH), 2, 2), r"\[2, 2\)"),
    "time not a number": ((torch.zeros(4, WIDTH), math.nan, 2), r"\[nan, 2\)"),
    "endless": ((torch.zeros(4, WIDTH), 2, math.inf), r"\[2, inf\)"),
    "no weight": ((torch.zeros(4, WIDTH), 2, 3, 0), "above 0, got 0"),
    "time of text": ((torch.zeros(4, WIDTH), "2", 3), r"\[2, 3\)"),
    "weight of text": ((torch.zeros(4, WIDTH), 2, 3, "1"), "above 0, got 1"),
    "weight not a number": ((torch.zeros(4, WIDTH), 2, 3, math.nan), "above 0, got nan"),
}


@every
@pytest.mark.parametrize("bad", BAD_FRAMES)
def test_a_bad_frame_is_refused_and_the_stream_goes_on(case: Case, bad: str) -> None:
    frame, message = BAD_FRAMES[bad]
    budget = case.budget(8)
    good = [
        (torch.zeros(4, WIDTH), 0.0, 1.0, 1.0),
        (torch.ones(4, WIDTH), 1.0, 2.0, 1.0),
        (torch.ones(4, WIDTH), 2.0, 3.0, 1.0),
    ]
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


@every
@pytest.mark.parametrize(
    "bad",
    ["x", "", [0.5], (1, "a"), {1: 2}, math.nan, 1j, -1.5, object(), torch.ones(2, 2, 2), True],
    ids=lambda bad: f"{type(bad).__name__}-{bad}"[:12],
)
def test_an_option_of_another_type_is_named(case: Case, bad: Any) -> None:
    for option in COMPRESSORS[case.name].parameters():
        kept = {name: value for name, value in case.options.items() if name != option}
        if option in BOOLEANS and bad is True:
            continue
        if option == "importance" and isinstance(bad, torch.Tensor):
            continue  # its shape is checked against the frames
        with pytest.raises(CompressionError):
            make_compressor(case.name, **({"budget": 4} | kept | {option: bad}))


BOOLEANS = {"keep_assignment", "means", "centred"}


def test_an_unknown_name_gives_the_nearest_and_all() -> None:
    with pytest.raises(
        CompressionError, match=r"no compressor 'word' \(did you mean 'ward'\?\); there are ward, ward-batched, "
    ):
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
