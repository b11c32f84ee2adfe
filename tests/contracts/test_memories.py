"""What every long memory promises. A new one is one line in the table ``MEMORIES`` and one in ``CASES``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from csat_fusion.errors import CompressionError
from csat_fusion.memory.base import MEMORIES, Memory, make_memory
from csat_fusion.tokens import TokenSet

Frame = tuple[Tensor, float, float]


@dataclass(frozen=True)
class Case:
    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, size: int = 48, **change: Any) -> Memory:
        return make_memory(self.name, size, **{**self.options, **change})


CASES = [
    Case("sketch"),
    Case("sketch", {"measurement": "gaussian", "dtype": torch.float64}),
    Case("adaptive"),
    Case("adaptive", {"decay": 0.0, "gap_seconds": math.inf}),
]
every = pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join([c.name, *c.options]))


def test_every_memory_of_the_table_is_tested() -> None:
    assert {case.name for case in CASES} == set(MEMORIES)


def make_frames(count: int, patches: int = 4, seed: int = 0, width: int = 6, scene: int = 10) -> list[Frame]:
    """Scenes of ``scene`` frames that do not change, at 2 frames a second."""
    generator = torch.Generator().manual_seed(seed)
    scenes = torch.randn(count // scene + 1, patches, width, generator=generator)
    return [(scenes[t // scene], t * 0.5, t * 0.5 + 0.5) for t in range(count)]


def feed(memory: Memory, frames: list[Frame]) -> Memory:
    for frame in frames:
        memory.add(*frame)
    return memory


def same(a: TokenSet, b: TokenSet, atol: float = 0.0) -> bool:
    names = ("tokens", "weight", "start_seconds", "end_seconds", "patch")
    pairs = [(getattr(a, name), getattr(b, name)) for name in names]
    return all(x.shape == y.shape and x.dtype == y.dtype and bool((x - y).abs().max() <= atol) for x, y in pairs)


def at_time(tokens: TokenSet, seconds: float, frame: Tensor) -> float:
    """The largest distance of a token of the frame to the nearest one kept whose span holds its middle."""
    now = (tokens.start_seconds <= seconds) & (tokens.end_seconds > seconds)
    assert now.any()
    return float(torch.cdist(frame.double(), tokens.tokens[now].double()).min(dim=1).values.max())


@every
def test_the_state_is_of_fixed_size(case: Case) -> None:
    memory = case.make(16)
    assert memory.state_bytes == 0
    sizes, files = set(), []
    for t, frame in enumerate(make_frames(160)):
        memory.add(*frame)
        sizes.add(memory.state_bytes)
        if t in (20, 159):
            files.append(len(memory.to_bytes()))
    assert len(sizes) == 1
    size = sizes.pop()
    assert abs(files[1] - files[0]) <= 64  # numbers with more digits
    assert 0 <= files[1] - size < 2048


@every
def test_still_scenes_come_back(case: Case) -> None:
    frames = make_frames(40)
    memory = feed(case.make(), frames)
    assert memory.frames_seen == 40
    assert memory.span == (0.0, 20.0)
    whole = memory.recover(0, 20)
    for tokens, start, end in frames:
        assert at_time(whole, (start + end) / 2, tokens) < 1e-3
        assert at_time(memory.recover(start, end), (start + end) / 2, tokens) < 1e-3
    assert whole.total_weight == pytest.approx(160, rel=1e-5)


@every
@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 30), start=st.floats(-3, 20), length=st.floats(0.01, 20), seed=st.integers(0, 99))
def test_no_span_leaves_the_one_asked_for(case: Case, count: int, start: float, length: float, seed: int) -> None:
    memory = feed(case.make(8), make_frames(count, seed=seed, scene=3))
    end = start + length
    if end <= 0 or start >= count * 0.5:
        with pytest.raises(CompressionError, match=r"nothing of \[.* s is held; this memory saw \[0.0, "):
            memory.recover(start, end)
        return
    if min(end, count * 0.5) - max(start, 0.0) < 1e-5:
        return  # the sketch rounds less than that away
    got = memory.recover(start, end)
    assert got.start_seconds.min() >= start
    assert got.end_seconds.max() <= end
    assert torch.isfinite(got.tokens).all()
    assert got.span == (pytest.approx(max(start, 0.0)), pytest.approx(min(end, count * 0.5)))
    order = torch.arange(len(got)).tolist()
    assert order == sorted(order, key=lambda k: float(got.start_seconds[k]))


@every
def test_merging_is_as_one_memory_of_both(case: Case) -> None:
    frames = make_frames(40)
    one, two = feed(case.make(), frames[:25]), feed(case.make(), frames[25:])
    before = two.to_bytes()
    one.merge(two)
    assert two.to_bytes() == before
    assert one.frames_seen == 40
    assert one.span == (0.0, 20.0)
    for tokens, start, end in frames:
        assert at_time(one.recover(start, end), (start + end) / 2, tokens) < 1e-3
    with pytest.raises(CompressionError, match=r"one at 10\.0 s after one at 19\.5 s"):
        one.add(frames[0][0], 10.0, 10.5)
    one.add(frames[0][0], 20.0, 20.5)
    assert at_time(one.recover(20, 20.5), 20.25, frames[0][0]) < 1e-3


@every
def test_merging_with_nothing(case: Case) -> None:
    frames = make_frames(12)
    full, empty = feed(case.make(), frames), case.make()
    before = full.to_bytes()
    full.merge(empty)
    assert full.to_bytes() == before
    empty.merge(full)
    assert empty.to_bytes() == before
    empty.add(frames[0][0], 6, 6.5)
    assert full.to_bytes() == before  # nothing is shared


@every
def test_merging_with_another_kind_is_refused(case: Case) -> None:
    memory = feed(case.make(), make_frames(4))
    before = memory.to_bytes()
    others = {
        "patches is one; here 4 and 3": feed(case.make(), make_frames(4, patches=3)),
        "width is one; here 6 and 5": feed(case.make(), make_frames(4, width=5)),
        "type is one": feed(case.make(), [(t.half(), a, b) for t, a, b in make_frames(4)]),
        "48 and 47": feed(case.make(47), make_frames(4)),
        "cannot take in a": feed(make_memory("adaptive" if case.name == "sketch" else "sketch", 48), make_frames(4)),
        "cannot take in itself": memory,
    }
    for message, other in others.items():
        with pytest.raises(CompressionError, match=message):
            memory.merge(other)
    assert memory.to_bytes() == before


@every
def test_a_scene_is_forgotten_and_the_rest_stays(case: Case) -> None:
    frames = make_frames(40)
    memory = feed(case.make(), frames)
    gone = memory.forget(5, 10)  # the second scene
    assert gone.span == (5.0, 10.0)
    assert gone.total_weight == pytest.approx(40, rel=1e-5)
    assert at_time(gone, 7.25, frames[14][0]) < 1e-3
    for t, (tokens, start, end) in enumerate(frames):
        if not 10 <= t < 20:
            assert at_time(memory.recover(start, end), (start + end) / 2, tokens) < 2e-3
    memory.add(frames[0][0], 20, 20.5)
    assert memory.frames_seen == 41


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_type_is_kept_and_the_input_copied(case: Case, dtype: torch.dtype) -> None:
    memory = case.make()
    kept = []
    for tokens, start, end in make_frames(20):
        frame = tokens.to(dtype).requires_grad_()
        kept.append(frame.detach().clone())
        memory.add(frame, start, end)
        with torch.no_grad():
            frame.zero_()
    got = memory.recover(0, 10)
    assert got.dtype == dtype
    assert not got.tokens.requires_grad
    assert at_time(got, 0.1, kept[0]) < 0.02
    read = memory.recover(0, 10)
    read.tokens.zero_()
    assert same(memory.recover(0, 10), got)


@every
def test_bytes_and_back(case: Case) -> None:
    frames = make_frames(40, scene=7)
    memory = feed(case.make(20), frames[:30])
    back = type(memory).from_bytes(memory.to_bytes())
    assert back.to_bytes() == memory.to_bytes()
    assert same(back.recover(3, 9), memory.recover(3, 9))
    feed(memory, frames[30:]), feed(back, frames[30:])
    assert same(back.recover(0, 20), memory.recover(0, 20))
    assert back.span == memory.span
    memory.merge(back)


@every
def test_damaged_bytes_are_refused(case: Case) -> None:
    memory = feed(case.make(20), make_frames(10))
    payload = memory.to_bytes()
    other = make_memory("adaptive" if case.name == "sketch" else "sketch", 20)
    for bad, message in (
        (b"", "too few"),
        (payload[:50], "too few"),
        (payload[:-9], "damaged memory"),
        (payload[:8] + b"x" + payload[9:], "no JSON"),
        (feed(other, make_frames(3)).to_bytes(), "its format is"),
        (payload.replace(rb"\"version\": \"1\"", rb"\"version\": \"7\""), "version '7' is not known"),
    ):
        with pytest.raises(CompressionError, match=message):
            type(memory).from_bytes(bad)


@every
def test_the_same_again_gives_the_same_and_no_seed_is_touched(case: Case) -> None:
    state = torch.get_rng_state()
    first, second = (feed(case.make(12), make_frames(50, scene=4)) for _ in range(2))
    assert first.to_bytes() == second.to_bytes()
    assert same(first.recover(0, 25), second.recover(0, 25))
    assert torch.equal(torch.get_rng_state(), state)


BAD_FRAMES: dict[str, tuple[tuple[Any, Any, Any], str]] = {
    "no tokens": ((torch.zeros(0, 6), 5, 6), r"got torch\.float32 \[0, 6\]"),
    "no matrix": ((torch.zeros(4, 6, 1), 5, 6), r"\[4, 6, 1\]"),
    "whole numbers": ((torch.zeros(4, 6, dtype=torch.int64), 5, 6), r"torch\.int64"),
    "no tensor": (([[0.0] * 6] * 4, 5, 6), "got list"),
    "other P": ((torch.zeros(5, 6), 5, 6), "5 tokens, those before it 4"),
    "other width": ((torch.zeros(4, 2), 5, 6), "width 2.*width 6"),
    "other type": ((torch.zeros(4, 6, dtype=torch.float64), 5, 6), r"torch\.float64 .* torch\.float32"),
    "other device": ((torch.zeros(4, 6, device="meta"), 5, 6), "on meta"),
    "not a number": ((torch.full((4, 6), math.nan), 5, 6), "size nan"),
    "infinite": ((torch.full((4, 6), -math.inf), 5, 6), "size inf"),
    "too large": ((torch.full((4, 6), 1e30), 5, 6), r"size 1e\+30; values must be finite and at most 1e\+15"),
    "back in time": ((torch.zeros(4, 6), 0.5, 6), r"one at 0\.5 s after one at 4\.5 s"),
    "no duration": ((torch.zeros(4, 6), 5, 5), r"\[5, 5\)"),
    "time not a number": ((torch.zeros(4, 6), math.nan, 6), r"\[nan, 6\)"),
    "endless": ((torch.zeros(4, 6), 5, math.inf), r"\[5, inf\)"),
}


@every
@pytest.mark.parametrize("bad", BAD_FRAMES)
def test_a_bad_frame_is_refused_and_the_stream_goes_on(case: Case, bad: str) -> None:
    frame, message = BAD_FRAMES[bad]
    memory = feed(case.make(), make_frames(10))
    before = memory.to_bytes()
    with pytest.raises(CompressionError, match=message):
        memory.add(*frame)
    assert memory.to_bytes() == before
    assert memory.frames_seen == 10
    memory.add(torch.zeros(4, 6), 5, 5.5)


@every
def test_values_of_any_size(case: Case) -> None:
    for size in (0.0, 1e-30, 1e-6, 1e15):
        frames = [(tokens.clamp(-1, 1) * size, start, end) for tokens, start, end in make_frames(60)]
        memory = feed(case.make(), frames)
        got = memory.recover(5, 10)
        assert torch.isfinite(got.tokens).all()
        assert at_time(got, 7.25, frames[14][0]) <= 1e-3 * size
        assert torch.isfinite(memory.forget(5, 10).tokens).all()


@every
def test_bad_spans_and_early_questions(case: Case) -> None:
    empty = case.make()
    for ask in (empty.recover, empty.forget):
        with pytest.raises(CompressionError, match="nothing was added to this memory yet"):
            ask(0, 1)
    with pytest.raises(CompressionError, match="nothing was added"):
        empty.to_bytes()
    with pytest.raises(CompressionError, match="nothing was added"):
        empty.span  # noqa: B018
    memory = feed(case.make(), make_frames(10))
    before = memory.to_bytes()
    for ask in (memory.recover, memory.forget):
        for start, end, message in (
            (1.0, 1.0, r"end after it starts, got \[1\.0, 1\.0\)"),
            (2.0, 1.0, r"\[2\.0, 1\.0\)"),
            (math.nan, 1.0, r"\[nan, 1\.0\)"),
            (0.0, math.inf, r"\[0\.0, inf\)"),
            (7.0, 8.0, r"nothing of \[7\.0, 8\.0\) s is held; this memory saw \[0\.0, 5\.0\) s"),
        ):
            with pytest.raises(CompressionError, match=message):
                ask(start, end)
    assert memory.to_bytes() == before


@every
def test_bad_sizes_are_named(case: Case) -> None:
    for size in (0, -2, 2.5, True):
        with pytest.raises(CompressionError, match=f"at least 1, got {size!r}"):
            case.make(size)  # type: ignore[arg-type]


def test_an_unknown_name_gives_the_nearest_and_all() -> None:
    with pytest.raises(
        CompressionError, match=r"no memory 'skech' \(did you mean 'sketch'\?\); there are sketch, adap"
    ):
        make_memory("skech", 4)
