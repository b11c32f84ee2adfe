"""The two halves of the loop: nothing of the time is lost, weights add up, results do not depend on batches."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csat_fusion.compressors.table import COMPRESSORS, NO_FIDELITY
from pipeline.digest import Digest, DigestOptions, TokenOptions
from pipeline.errors import MediaDamaged, OptionError
from pipeline.fuse import VectorOptions
from pipeline.gate import GateOptions
from pipeline.media import Block, PartResult, Span, WatchSummary
from pipeline.sampling import SamplingOptions
from pipeline.segments import SegmentOptions
from pipeline.watch import WatchTask, watch
from tests.drawing import draw_video
from tests.pipeline import fakes

SCRIPTED = "tests.pipeline.fakes:ScriptedSource"


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real file to be probed; what is played comes from the script."""
    return str(draw_video(tmp_path_factory.mktemp("film") / "film.mp4", frames=5))


def task(film: str, **changes: object) -> WatchTask:
    made = WatchTask(
        source=film,
        uri=film,
        cache_dir="unused",
        cache_bytes=1,
        span=Span(0, 1e9),
        short_side=fakes.SIDE,
        decoder=SCRIPTED,
        segments=SegmentOptions(max_seconds=8),
        gate=GateOptions(hold_seconds=3),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def look(task: WatchTask) -> tuple[list[Block], WatchSummary]:
    *blocks, summary = list(watch(task))
    assert isinstance(summary, WatchSummary)
    assert all(isinstance(block, Block) for block in blocks)
    return blocks, summary  # type: ignore[return-value]


def check_coverage(blocks: list[Block], summary: WatchSummary, start: float, end: float) -> None:
    """Looks partition their segments, segments partition the part, weights count the sampled frames."""
    looks = sorted(
        (int(b.segment[i]), float(b.start_seconds[i]), float(b.end_seconds[i])) for b in blocks for i in range(len(b))
    )
    closed = [segment for block in blocks for segment in block.closed]
    assert [s.index for s in closed] == list(range(len(closed)))
    assert closed[0].span.start_seconds == start
    assert closed[-1].span.end_seconds == pytest.approx(end)
    for left, right in pairwise(closed):
        assert left.span.end_seconds == right.span.start_seconds
    for segment in closed:
        mine = [entry[1:] for entry in looks if entry[0] == segment.index]
        assert mine[0][0] == segment.span.start_seconds
        assert mine[-1][1] == segment.span.end_seconds
        assert all(a[1] == b[0] for a, b in pairwise(mine))
    assert summary.frames_encoded == len(looks)
    assert summary.skipped_by_gate <= summary.frames_sampled


levels = st.lists(st.sampled_from([0, 60, 120, 180]), min_size=1, max_size=30)


@given(levels, st.sampled_from([0.3, 1.0, 2.0]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_no_time_is_lost(film: str, levels: list[int], fps: float, gate: bool) -> None:
    fakes.script(film, levels)
    order = task(film, sampling=SamplingOptions(fps=fps), gate=GateOptions(enabled=gate, hold_seconds=3))
    blocks, summary = look(order)
    check_coverage(blocks, summary, 0.0, float(len(levels)))
    assert summary.frames_decoded == 10 * len(levels)


@given(levels.filter(lambda v: len(v) >= 4), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_parts_cover_what_the_whole_covers(film: str, levels: list[int], border: int) -> None:
    fakes.script(film, levels)
    first, summary_a = look(task(film, span=Span(0, border)))
    second, summary_b = look(task(film, span=Span(border, 1e9)))
    check_coverage(first, summary_a, 0.0, float(border))
    check_coverage(second, summary_b, float(border), float(len(levels)))
    _, whole = look(task(film))
    assert summary_a.frames_sampled + summary_b.frames_sampled == whole.frames_sampled


def test_a_picture_shown_across_parts_keeps_its_time(film: str) -> None:
    # Slides: one picture for minutes, while parts are 600 s long; the part from 600 to 1000 s has no frame of its own.
    seen: list[tuple[float, float, int]] = []
    for part in (Span(0, 600), Span(600, 1000), Span(1000, 1600), Span(1600, 1e9)):
        blocks, summary = look(task(film, span=part, decoder="tests.pipeline.fakes:SlideSource"))
        if summary.covered is None:
            assert not blocks
            continue
        check_coverage(blocks, summary, summary.covered.start_seconds, summary.covered.end_seconds)
        for block in blocks:
            seen += [
                (float(a), float(b), int(image.mean()))
                for a, b, image in zip(block.start_seconds, block.end_seconds, block.images, strict=True)
            ]
    assert seen[0][0] == 0
    assert seen[-1][1] == 2000
    assert all(a[1] == b[0] for a, b in pairwise(seen))
    for start, end, level in seen:
        assert level == (20 if end <= 1000 else 120 if start >= 1000 and end <= 1700 else 220)


def test_still_picture_is_held_and_split(film: str) -> None:
    fakes.script(film, [50] * 20)
    blocks, summary = look(task(film))
    assert summary.frames_sampled == 40
    assert summary.frames_encoded == 8  # at 0, 3, 6 of each segment of 8 s, and 16 and 19
    assert summary.skipped_by_gate == 32
    boundaries = [s.boundary for b in blocks for s in b.closed]
    assert boundaries == ["limit", "limit", "end"]
    assert sum(int(b.weight.sum()) for b in blocks) == 40


def test_shot_shorter_than_the_grid_is_still_looked_at(film: str) -> None:
    fakes.script(film, [0, 0, 0, 180, 0, 0, 0])
    blocks, _ = look(task(film, sampling=SamplingOptions(fps=0.3)))
    closed = [s for b in blocks for s in b.closed]
    short = next(s for s in closed if s.span == Span(3.0, 4.0))
    picture = next(b.images[i] for b in blocks for i in range(len(b)) if b.segment[i] == short.index)
    assert picture.mean() > 150


def test_blocks_are_bounded(film: str) -> None:
    fakes.script(film, [0, 120] * 15)
    blocks, _ = look(task(film, block_frames=3, gate=GateOptions(enabled=False)))
    assert max(len(block) for block in blocks) == 3


def test_errors_of_the_source_come_through(film: str) -> None:
    fakes.script(film, [0] * 5)
    with pytest.raises(MediaDamaged, match=r"broken at 2\.0 s"):
        list(watch(task(film, decoder="tests.pipeline.fakes:BreakingSource")))


# -- the encode side --------------------------------------------------------------------------------------------------


def digest(blocks: list[Block], summary: WatchSummary, batch_size: int, options: DigestOptions) -> PartResult:
    made = Digest(fakes.ToneEncoder(batch_size), options)
    for block in blocks:
        made.add(block)
    return made.finish(summary)


@given(levels, st.sampled_from([1, 2, 5, 64]))
@settings(max_examples=20, deadline=None)
def test_vectors_partition_their_segment_whatever_the_batches(film: str, levels: list[int], batch_size: int) -> None:
    fakes.script(film, levels)
    options = DigestOptions(vectors=VectorOptions(frames_per_vector=4), thumbnail_pixels=0)
    blocks, summary = look(task(film))
    result = digest(blocks, summary, batch_size, options)
    assert [s.index for s in result.segments] == list(range(len(result.segments)))
    for segment in result.segments:
        vectors = segment.vectors
        assert vectors.start_seconds[0] == segment.span.start_seconds
        assert vectors.end_seconds[-1] == segment.span.end_seconds
        assert np.array_equal(vectors.end_seconds[:-1], vectors.start_seconds[1:])
        assert np.allclose(np.linalg.norm(vectors.embedding.astype(np.float32), axis=1), 1, atol=2e-3)
        assert 1 <= len(vectors) <= max(1, int(vectors.weight.sum() / 3))
    again = digest(blocks, summary, 3, options)
    for one, other in zip(result.segments, again.segments, strict=True):
        assert np.array_equal(one.vectors.embedding, other.vectors.embedding)


@given(st.integers(1, 500), st.integers(0, 500), st.floats(1, 20), st.floats(0.05, 1))
def test_vector_budget_grows_with_what_is_new(encoded: int, skipped: int, per_vector: float, share: float) -> None:
    options = VectorOptions(per_vector, share)
    budget = options.budget(encoded, encoded + skipped)
    assert 1 <= budget <= max(1, -(-encoded // per_vector))
    assert budget <= options.budget(encoded + 1, encoded + 1 + skipped)
    assert budget >= options.budget(encoded, encoded + skipped + 10)


def test_token_sets_and_thumbnails_are_kept_when_asked_for(film: str) -> None:
    from csat_fusion import TokenSet

    fakes.script(film, [0] * 4 + [180] * 4)
    blocks, summary = look(task(film))
    plain = digest(blocks, summary, 4, DigestOptions())
    assert all(s.tokens is None and s.thumbnail_jpeg for s in plain.segments)
    kept = digest(blocks, summary, 4, DigestOptions(tokens=TokenOptions(keep=True, budget=6), thumbnail_pixels=0))
    assert len(kept.segments) == 2
    for segment in kept.segments:
        assert segment.thumbnail_jpeg is None
        assert segment.tokens is not None
        tokens = TokenSet.from_bytes(segment.tokens.payload)
        assert len(tokens.tokens) == segment.tokens.count <= 6
        # Each sampled frame gives 4 patches; merging keeps their number as weight.
        assert float(tokens.weight.sum()) == pytest.approx(4 * segment.vectors.weight.sum())


@pytest.mark.parametrize("name", [name for name in COMPRESSORS if name != "query"])
def test_any_compressor_serves_by_its_name(film: str, name: str) -> None:
    from csat_fusion import TokenSet

    fakes.script(film, [0] * 4 + [180] * 4)
    blocks, summary = look(task(film))
    options = TokenOptions(keep=True, compressor=name, budget=None if name == "identity" else "1/2")
    kept = digest(blocks, summary, 4, DigestOptions(tokens=options, thumbnail_pixels=0))
    assert len(kept.segments) == 2
    for segment in kept.segments:
        assert segment.tokens is not None
        assert segment.tokens.compressor == name
        tokens = TokenSet.from_bytes(segment.tokens.payload)
        assert float(tokens.weight.sum()) == pytest.approx(4 * segment.vectors.weight.sum())
        assert tokens.span == (segment.span.start_seconds, segment.span.end_seconds)
    assert TokenOptions().compressor == "ward"


def test_token_options_that_cannot_be_are_named() -> None:
    for change, message in (
        (
            {"compressor": "word"},
            r"tokens\.compressor: no compressor 'word' \(did you mean 'ward'\?\)",
        ),
        ({"compressor": "query"}, "which keeps what a question asks for"),
        ({"budget": 0}, r"tokens\.budget: the budget must be a whole number of tokens, at least 1, got 0"),
        ({"budget": "0/4"}, r"tokens\.budget: the ratio of a budget must be above 0"),
        ({"budget": None}, "null, no limit; only identity takes that, not ward"),
        ({"budget": "cosine 0.9", "compressor": "runs"}, "runs cannot keep to a fidelity"),
        ({"gap_seconds": 0.0}, r"tokens\.gap_seconds is 0\.0; allowed: more than 0"),
    ):
        with pytest.raises(OptionError, match=message):
            TokenOptions(**change)  # type: ignore[arg-type]
    refused = {name for name, entry in COMPRESSORS.items() if not entry.load().by_cosine}
    assert refused == NO_FIDELITY


def test_real_clip_keeps_what_it_stands_for(media: Path) -> None:
    clip = str(media / "clips" / "intel_one-by-one-person-detection.mp4")
    order = replace(
        task(clip), decoder="auto", short_side=224, gate=GateOptions(), segments=SegmentOptions(), block_frames=8
    )
    blocks, summary = look(order)
    check_coverage(blocks, summary, 0.0, 139.4)
    assert summary.frames_sampled == 279
    assert summary.frames_encoded < 0.4 * summary.frames_sampled
    # Each person who comes in or leaves is looked at within a second (times measured by frame differencing).
    starts = np.concatenate([b.pts_seconds for b in blocks])
    for change in (6.1, 19.8, 22.8, 45.0):
        assert ((starts >= change - 0.5) & (starts <= change + 1.0)).any(), change
