"""Words of live windows: what a captioner that knows of streams is told, and what one that does not is asked."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from types import TracebackType

import numpy as np
import numpy.typing as npt
import pytest
import torch

from csat_fusion.tokens import TokenSet
from encoders.captioning import Caption, Captioner, CaptionerInfo, KeyFrame
from encoders.errors import EncoderError
from encoders.streams import CaptionsStreams, StreamingOptions, StreamPush
from pipeline.digest import TokenOptions
from pipeline.errors import OptionError
from pipeline.live.captions import LiveCaptioner, WordsMissing
from pipeline.live.digest import ClosedContent
from pipeline.live.options import CaptionWindowOptions
from pipeline.live.types import ClosedWindow, LiveCaption
from pipeline.media import Span

READS = "f"


class Plain:
    """A captioner that takes each segment for itself, and numbers its words."""

    def __init__(self) -> None:
        self.info = CaptionerInfo("python:plain", "p", False, READS, 2, 8, 4, 4, "cpu")
        self.spans: list[list[tuple[float, float]]] = []

    def tokens(self, frames: npt.NDArray[np.uint8]) -> torch.Tensor:
        raise AssertionError("its tokens are those of the windows")

    def caption(
        self,
        token_sets: Sequence[TokenSet | None],
        *,
        spans: Sequence[tuple[float, float] | None] | None = None,
        key_frames: Sequence[Sequence[KeyFrame]] | None = None,
    ) -> list[Caption]:
        given = [span for span in spans or () if span is not None]
        self.spans.append(given)
        return [Caption(f"from {start:g}", start, end, "m", 0.5) for start, end in given]

    def close(self) -> None: ...

    def __enter__(self) -> Plain:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Streams:
    """What a captioner knows of streams: all that it was told."""

    def __init__(self, options: StreamingOptions) -> None:
        self.options = options
        self.calls: list[list[StreamPush]] = []
        self.dropped: list[str] = []
        self.fails = False
        self.state_bytes = 7

    def push(self, pushes: Sequence[StreamPush]) -> list[Caption]:
        if self.fails:
            raise EncoderError("no finite scores")
        self.calls.append(list(pushes))
        return [Caption(f"from {push.span[0]:g}", *push.span, "m", 0.5) for push in pushes]

    def drop(self, stream: str) -> None:
        self.dropped.append(stream)


class Knowing(Plain):
    """A captioner that knows of streams."""

    def streams(self, options: StreamingOptions | None = None) -> Streams:
        assert options is not None
        self.made = Streams(options)
        return self.made


def content(
    index: int, start: float, end: float, boundary: str = "limit", still: bool = False, angle: float = 0.0
) -> ClosedContent:
    seconds = torch.tensor([start], dtype=torch.float64)
    tokens = TokenSet(
        torch.ones(1, 2), torch.ones(1), seconds, seconds + end - start, torch.zeros(1, dtype=torch.int64)
    )
    look = KeyFrame(np.zeros((4, 4, 3), np.uint8), start, start, end)
    vector = np.array([np.cos(angle), np.sin(angle)], np.float32)
    return ClosedContent(ClosedWindow(index, Span(start, end), boundary, still), tokens, (look,), vector)


def captioner_of(captioner: Captioner, **options: float) -> LiveCaptioner:
    return LiveCaptioner(captioner, READS, CaptionWindowOptions(**options), TokenOptions())  # type: ignore[arg-type]


def told(captions: Sequence[LiveCaption]) -> list[tuple[str, int, str, bool]]:
    return [(one.stream, one.window, one.text, one.extends) for one in captions]


def test_the_doubles_are_what_they_say() -> None:
    assert not isinstance(Plain(), CaptionsStreams)
    assert isinstance(Knowing(), CaptionsStreams)


def test_a_scene_goes_on_over_limits_and_news_only() -> None:
    """What a window is cut from is how the one before it ended, if anybody knows."""
    knowing = Knowing()
    words = captioner_of(knowing)
    ends = ["limit", "news", "shot", "limit", "gap", "end", "limit"]
    for index, boundary in enumerate(ends):
        words.caption([("a", content(index, 10.0 * index, 10.0 * index + 10, boundary))])
    words.caption([("a", content(9, 90, 100))])  # 7 and 8 were skipped
    cuts = [push.cut for call in knowing.made.calls for push in call]
    assert cuts == [True, False, False, True, False, True, True, True]


def test_a_shot_that_got_no_words_ends_the_scene_too() -> None:
    """Too short for words, or still: the stream was seen, the captioner was not asked."""
    knowing = Knowing()
    words = captioner_of(knowing)
    words.caption([("a", content(0, 0, 10))])
    assert words.caption([("a", content(1, 10, 10.2, "shot"))]) == []
    words.caption([("a", content(2, 10.2, 20))])
    (held,) = words.caption([("a", content(3, 20, 30, still=True))])
    assert (held.text, held.extends) == ("from 10.2", True)
    words.caption([("a", content(4, 30, 40))])
    assert [(push.span[0], push.cut) for call in knowing.made.calls for push in call] == [
        (0, True), (10.2, True), (30, False),
    ]  # fmt: skip


def test_streams_go_side_by_side_and_their_windows_one_after_the_other() -> None:
    windows = [
        ("a", content(0, 0, 10)), ("b", content(0, 0, 8)), ("a", content(1, 10, 20)), ("c", content(3, 5, 9)),
        ("a", content(2, 20, 30)), ("b", content(1, 8, 18)),
    ]  # fmt: skip
    wanted = [("a", 0), ("b", 0), ("c", 3), ("a", 1), ("b", 1), ("a", 2)]
    knowing, plain = Knowing(), Plain()
    found = captioner_of(knowing).caption(windows)
    assert [(one.stream, one.window) for one in found] == wanted
    assert [[push.stream for push in call] for call in knowing.made.calls] == [["a", "b", "c"], ["a", "b"], ["a"]]
    assert told(captioner_of(plain).caption(windows)) == told(found)
    assert [len(call) for call in plain.spans] == [3, 2, 1]


def test_the_captioner_is_told_how_far_back_and_how_firmly() -> None:
    knowing = Knowing()
    words = captioner_of(knowing, back_seconds=30.0, margin=0.25)
    options = knowing.made.options
    assert (options.window_seconds, options.margin, options.gap_seconds) == (30.0, 0.25, TokenOptions().gap_seconds)
    assert words.state_bytes == 7
    words.drop("a")
    assert knowing.made.dropped == ["a"]
    assert captioner_of(Plain()).state_bytes == 0


def test_a_stream_that_was_dropped_begins_with_a_cut() -> None:
    knowing = Knowing()
    words = captioner_of(knowing)
    words.caption([("a", content(0, 0, 10))])
    words.drop("a")
    words.caption([("a", content(1, 10, 20))])
    assert [push.cut for call in knowing.made.calls for push in call] == [True, True]


def test_after_a_failure_a_stream_goes_on() -> None:
    knowing = Knowing()
    words = captioner_of(knowing)
    words.caption([("a", content(0, 0, 10))])
    knowing.made.fails = True
    with pytest.raises(WordsMissing, match="EncoderError: no finite scores") as caught:
        words.caption([("a", content(1, 10, 20)), ("b", content(7, 10, 20)), ("a", content(2, 20, 30))])
    assert (caught.value.made, caught.value.missing) == ((), (("a", 1), ("b", 7), ("a", 2)))
    knowing.made.fails = False
    (found,) = words.caption([("a", content(3, 30, 40))])
    assert told([found]) == [("a", 3, "from 30", False)]


def test_what_was_answered_is_kept_when_one_is_not() -> None:
    """The error names the window without words; all others have theirs, those of later turns too. It travels."""

    class Partly(Plain):
        def caption(self, token_sets, *, spans=None, key_frames=None):  # type: ignore[no-untyped-def]
            made = super().caption(token_sets, spans=spans, key_frames=key_frames)
            if not any(one.start_seconds == 5 for one in made):
                return made
            error = EncoderError("the second was refused")
            error.captions = tuple(None if one.start_seconds == 5 else one for one in made)
            raise error

    words = captioner_of(Partly())
    windows = [
        ("a", content(0, 0, 10)), ("b", content(0, 5, 10)), ("a", content(1, 10, 20)), ("b", content(1, 10, 20)),
        ("c", content(0, 0, 0.1)),
    ]  # fmt: skip
    with pytest.raises(WordsMissing, match="EncoderError: the second was refused") as caught:
        words.caption(windows)
    error = pickle.loads(pickle.dumps(caught.value))
    assert str(error) == str(caught.value)
    assert [(one.stream, one.window) for one in error.made] == [("a", 0), ("a", 1), ("b", 1)]
    assert error.missing == (("b", 0),), "c is too short for words: none are missing"


def test_a_captioner_without_words_for_a_window_misses_nothing() -> None:
    class Silent(Plain):
        def caption(self, token_sets, *, spans=None, key_frames=None):  # type: ignore[no-untyped-def]
            return [Caption("", *span, "m", None) for span in spans]

    assert captioner_of(Silent()).caption([("a", content(0, 0, 10))]) == []


# -- earlier moments ---------------------------------------------------------------------------------------------------


def test_earlier_moments_are_what_was_said_last_and_of_what_looked_alike() -> None:
    """Two scenes that take turns, each with its own vector; the last words, and of the others those of this scene."""
    knowing = Knowing()
    words = captioner_of(knowing, earlier=3)
    for index in range(6):
        words.caption([("a", content(index, 10 * index, 10 * index + 10, "shot", angle=1.5 * (index % 2)))])
    words.caption([("b", content(0, 0, 10))])
    given = [[one.start_seconds for one in push.earlier] for call in knowing.made.calls for push in call]
    assert given == [[], [0], [0, 10], [0, 10, 20], [0, 20, 30], [10, 30, 40], []]
    assert knowing.made.calls[1][0].earlier[0].text == "from 0"


def test_words_that_hold_on_are_one_moment_up_to_their_end() -> None:
    knowing = Knowing()
    words = captioner_of(knowing, earlier=2)
    words.caption([("a", content(0, 0, 10))])
    words.caption([("a", content(1, 10, 30, still=True))])
    words.caption([("a", content(2, 30, 40, angle=1.0))])
    (moment,) = knowing.made.calls[-1][0].earlier
    assert (moment.text, moment.start_seconds, moment.end_seconds) == ("from 0", 0, 30)


def test_the_memory_of_moments_is_bounded() -> None:
    knowing = Knowing()
    words = captioner_of(knowing, earlier=9, remembered=4)
    sizes = []
    for index in range(200):
        words.caption([("a", content(index, 10 * index, 10 * index + 10, "shot"))])
        sizes.append(words.state_bytes)
    assert len(knowing.made.calls[-1][0].earlier) == 4
    assert max(sizes) <= 7 + 4 * (2 * 4 + len("from 1990"))
    words.drop("a")
    assert words.state_bytes == 7


def test_without_being_asked_no_moments_are_kept() -> None:
    knowing = Knowing()
    words = captioner_of(knowing)
    for index in range(3):
        words.caption([("a", content(index, 10 * index, 10 * index + 10))])
    assert [list(push.earlier) for call in knowing.made.calls for push in call] == [[], [], []]
    assert words.state_bytes == 7


@pytest.mark.parametrize(
    "wrong", [{"margin": -0.1}, {"earlier": -1}, {"remembered": 0}, {"back_seconds": -1.0}, {"margin": float("nan")}]
)
def test_options_say_what_is_allowed(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=f"live.captions.{next(iter(wrong))}.*allowed"):
        captioner_of(Knowing(), **wrong)
