"""Right moments and answers: what they are, and the two kinds of JSONL file that hold them.

Ours has one line for each moment. Lines of the same video and query are one question with several right spans, or
with several answers; keys that are not named here are left alone.

    {"video": "gate.mp4", "query": "a dog runs", "start": 3.0, "end": 7.5, "duration": 60.0}
    {"video": "gate.mp4", "query": "a dog runs", "start": 2.5, "end": 7.0, "score": 0.31, "peak": 4.0}

``duration`` and ``peak`` may be missing. A truth line with ``shot`` instead of ``query`` is a shot boundary: it is
passed over, and counted.

QVHighlights' (J. Lei, T. L. Berg, M. Bansal, "QVHighlights: Detecting Moments and Highlights in Videos via Natural
Language Queries", 2021, arXiv 2107.09609) has one line for each query:

    {"qid": 7, "query": "...", "vid": "a_0.0_150.0", "duration": 150, "relevant_windows": [[24, 52], [60, 64]]}
    {"qid": 7, "query": "...", "vid": "a_0.0_150.0", "pred_relevant_windows": [[24, 50, 0.9], [0, 10, 0.2]]}

Of the second, ``query`` and ``vid`` may be missing, as its evaluator does not read them.

What is right must make sense: a right span starts at 0 or later, is longer than zero, and ends within the duration
(and one second, since durations are rounded). An answer is taken as it is, as the evaluator takes it: one that reaches
outside the video is not cut, one of length zero (start = end) overlaps nothing and is a miss; only one that ends before
it starts is an error. Times are media time in seconds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, PredictionError, TruthError
from pipeline.media import Span

__all__ = [
    "LONGREEL",
    "QVHIGHLIGHTS",
    "Prediction",
    "PredictionFile",
    "TruthFile",
    "TruthMoment",
    "query_id_of",
    "read_prediction_file",
    "read_predictions",
    "read_truth",
    "read_truth_file",
]

LONGREEL, QVHIGHLIGHTS = "longreel", "qvhighlights"
_LATE_SECONDS = 1.0  # a right span may end so much after the duration that the file states
_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True)
class TruthMoment:
    """A query asked of a video, with every span that is right.

    Attributes:
        spans: at least one; in the order of the file (QVHighlights) or of time (ours).
        duration_seconds: of the video, where the file says it.
        where: file and line in which the query is there first, for messages.

    Raises:
        TruthError: no query, no video, or no span.
    """

    query_id: str
    query: str
    video: str
    spans: tuple[Span, ...]
    duration_seconds: float | None = None
    where: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not self.query.strip() or not self.video:
            raise TruthError(
                f"query {self.query_id}: a query and a video are needed, got {self.query!r}, {self.video!r}"
            )
        if not self.spans:
            raise TruthError(f"query {self.query_id} ({self.query!r}): no right span; at least one is needed")


@dataclass(frozen=True)
class Prediction:
    """One answer to a query: the span, its score, and where its peak is (None: not said).

    Attributes:
        video: where it was found; "" where the file does not say, which means the query's own video.

    Raises:
        PredictionError: a number that is not finite, or an end before the start.
    """

    query_id: str
    video: str
    start_seconds: float
    end_seconds: float
    score: float
    peak_seconds: float | None = None

    def __post_init__(self) -> None:
        numbers = (self.start_seconds, self.end_seconds, self.score, self.peak_seconds or 0.0)
        if not all(map(math.isfinite, numbers)):
            raise PredictionError(f"query {self.query_id}: an answer's numbers must be finite, got {numbers}")
        if self.end_seconds < self.start_seconds:
            raise PredictionError(
                f"query {self.query_id}: an answer ends at {self.end_seconds}, before it starts at {self.start_seconds}"
            )

    @property
    def peak_or_middle_seconds(self) -> float:
        """The peak; where none is said, the middle of the span."""
        if self.peak_seconds is not None:
            return self.peak_seconds
        return (self.start_seconds + self.end_seconds) / 2


@dataclass(frozen=True)
class TruthFile:
    """A file of right moments: ``layout`` is ``longreel`` or ``qvhighlights``, ``shots`` the lines passed over."""

    layout: str
    moments: tuple[TruthMoment, ...]
    shots: int = 0


@dataclass(frozen=True)
class PredictionFile:
    """A file of answers in the order of the file; ``query_ids`` are the queries that have a line, answers or none."""

    layout: str
    predictions: tuple[Prediction, ...]
    query_ids: tuple[str, ...]


def query_id_of(video: str, query: str) -> str:
    """The id of a query in our files, which have none of their own."""
    return json.dumps([video, query], ensure_ascii=False)


def read_truth(path: str | Path) -> list[TruthMoment]:
    """The right moments of a file, either kind; see :func:`read_truth_file`."""
    return list(read_truth_file(path).moments)


def read_predictions(path: str | Path) -> list[Prediction]:
    """The answers of a file, either kind; see :func:`read_prediction_file`."""
    return list(read_prediction_file(path).predictions)


def read_truth_file(path: str | Path) -> TruthFile:
    """Read right moments; which kind of file it is shows in the keys of its first line.

    Raises:
        TruthError: the file cannot be read or has no moment; a line is no JSON object, lacks a key, or is of the other
            kind; a span is empty, negative, not finite, or ends after the duration; a ``qid`` or a moment is there
            twice; durations of a video disagree. Names file, line and value.
    """
    lines = list(_lines(path, TruthError))
    layout = _layout(lines, path, TruthError)
    reader = _qvhighlights_truth if layout == QVHIGHLIGHTS else _longreel_truth
    found = reader(lines)
    if not found.moments:
        raise TruthError(f"{path}: {found.shots} lines with 'shot' and none with 'query': no moment to judge by")
    return found


def read_prediction_file(path: str | Path) -> PredictionFile:
    """Read answers; which kind of file it is shows in the keys of its first line.

    Raises:
        PredictionError: the file cannot be read or is empty; a line is no JSON object, lacks a key, or is of the other
            kind; a number is not finite; an answer ends before it starts; a ``qid`` is there twice. Names file, line
            and value.
    """
    lines = list(_lines(path, PredictionError))
    layout = _layout(lines, path, PredictionError)
    return _qvhighlights_predictions(lines) if layout == QVHIGHLIGHTS else _longreel_predictions(lines)


# -- lines and values ------------------------------------------------------------------------------------------------

_Error = type[InputError]


class _Line:
    """A JSON object of a file, and how to ask it for values; every error names file and line."""

    def __init__(self, where: str, number: int, values: dict[str, Any], error: _Error) -> None:
        self.where, self.number, self._values, self._error = where, number, values, error

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def fail(self, message: str) -> InputError:
        return self._error(f"{self.where}: {message}")

    def get(self, key: str) -> Any:
        if key not in self._values:
            raise self.fail(f"no key {key!r}; there are: {', '.join(map(repr, self._values)) or 'none'}")
        return self._values[key]

    def text(self, key: str) -> str:
        value = self.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.fail(f"{key!r} must be a text that is not empty, got {_shown(value)}")
        if any("\ud800" <= letter <= "\udfff" for letter in value):
            raise self.fail(f"{key!r} holds half a character (a lone surrogate): {_shown(value)}")
        return value

    def seconds(self, key: str) -> float:
        return self.number_of(self.get(key), repr(key))

    def number_of(self, value: object, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.fail(f"{name} must be a number, got {_shown(value)}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.fail(f"{name} must be a finite number, got {_shown(value)}")
        return number

    def qid(self) -> str:
        value = self.get("qid")
        if isinstance(value, bool) or not isinstance(value, (int, str)) or value == "":
            raise self.fail(f"'qid' must be a whole number or a text, got {_shown(value)}")
        return str(value)

    def rows(self, key: str, width: int, form: str) -> list[list[float]]:
        """A list of lists of ``width`` numbers."""
        value = self.get(key)
        if not isinstance(value, list):
            raise self.fail(f"{key!r} must be a list of {form}, got {_shown(value)}")
        rows = []
        for i, row in enumerate(value):
            if not isinstance(row, list) or len(row) != width:
                raise self.fail(f"{key}[{i}] must be {form}, got {_shown(row)}")
            rows.append([self.number_of(item, f"{key}[{i}][{j}]") for j, item in enumerate(row)])
        return rows

    def right_span(self, start: float, end: float, duration: float | None) -> Span:
        if start < 0:
            raise self.fail(f"a right span starts at {start}; media time starts at 0")
        if end <= start:
            raise self.fail(f"the right span [{start}, {end}) is empty: it must end after it starts")
        if duration is not None and end > duration + _LATE_SECONDS:
            raise self.fail(f"the right span [{start}, {end}) ends after the video, which lasts {duration} s")
        return Span(start, end)

    def duration(self) -> float | None:
        if self._values.get("duration") is None:
            return None
        duration = self.seconds("duration")
        if duration <= 0:
            raise self.fail(f"'duration' must be above 0, got {duration}")
        return duration

    def prediction(self, query_id: str, video: str, numbers: list[float], peak: float | None = None) -> Prediction:
        try:
            return Prediction(query_id, video, numbers[0], numbers[1], numbers[2], peak)
        except PredictionError as error:
            raise self.fail(str(error)) from error


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _lines(path: str | Path, error: _Error) -> Iterator[_Line]:
    try:
        content = Path(path).read_bytes()
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror}") from problem
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content[: problem.start].count(b"\n") + 1
        raise error(f"{path}:{line}: not UTF-8 text; a JSONL file was expected") from problem
    for number, raw in enumerate(text.split("\n"), start=1):
        if not raw.strip():
            continue
        where = f"{path}:{number}"
        try:
            values = json.loads(raw)
        except json.JSONDecodeError as problem:
            raise error(f"{where}: not JSON: {problem.msg} at column {problem.colno}") from problem
        except (RecursionError, ValueError) as problem:  # nested too deep; a number with thousands of digits
            raise error(f"{where}: not JSON that can be read: {problem}") from problem
        if not isinstance(values, dict):
            raise error(f"{where}: a JSON object was expected, got {_shown(values)}")
        yield _Line(where, number, values, error)


def _layout(lines: list[_Line], path: str | Path, error: _Error) -> str:
    """The kind of the file, which all lines share."""
    if not lines:
        raise error(f"{path}: empty: one JSON object a line was expected")
    kinds = [QVHIGHLIGHTS if "qid" in line else LONGREEL if "video" in line else "" for line in lines]
    for line, kind in zip(lines, kinds, strict=True):
        if not kind:
            raise line.fail(
                "neither our keys (video, query, start, end) nor those of QVHighlights (qid, query, vid and "
                f"{'relevant_windows' if error is TruthError else 'pred_relevant_windows'})"
            )
        if kind != kinds[0]:
            raise line.fail(f"a line of kind {kind!r} in a file whose first line is of kind {kinds[0]!r}")
    return kinds[0]


class _Once:
    """Refuses what was there before."""

    def __init__(self) -> None:
        self._lines: dict[Any, int] = {}

    def __call__(self, key: Any, line: _Line, name: str) -> None:
        if key in self._lines:
            raise line.fail(f"{name} is there twice, first in line {self._lines[key]}")
        self._lines[key] = line.number


# -- the two kinds ---------------------------------------------------------------------------------------------------


def _longreel_truth(lines: list[_Line]) -> TruthFile:
    spans: dict[tuple[str, str], list[Span]] = {}
    places: dict[tuple[str, str], str] = {}
    durations: dict[str, tuple[float, int]] = {}
    once, shots = _Once(), 0
    for line in lines:
        if "shot" in line and "query" not in line:
            shots += 1
            continue
        video, query, duration = line.text("video"), line.text("query"), line.duration()
        span = line.right_span(line.seconds("start"), line.seconds("end"), duration)
        once((video, query, span), line, f"the moment [{span.start_seconds}, {span.end_seconds})")
        spans.setdefault((video, query), []).append(span)
        places.setdefault((video, query), line.where)
        if duration is not None:
            said, where = durations.setdefault(video, (duration, line.number))
            if said != duration:
                raise line.fail(f"{video!r} lasts {duration} s here, and {said} s in line {where}")
    moments = tuple(
        TruthMoment(
            query_id_of(video, query),
            query,
            video,
            tuple(sorted(found)),
            durations.get(video, (None, 0))[0],
            places[video, query],
        )
        for (video, query), found in spans.items()
    )
    return TruthFile(LONGREEL, moments, shots)


def _qvhighlights_truth(lines: list[_Line]) -> TruthFile:
    moments, once = [], _Once()
    for line in lines:
        qid, query, video, duration = line.qid(), line.text("query"), line.text("vid"), line.duration()
        once(qid, line, f"qid {qid}")
        rows = line.rows("relevant_windows", 2, "[start, end]")
        if not rows:
            raise line.fail("'relevant_windows' is empty: at least one right window is needed")
        windows = tuple(line.right_span(start, end, duration) for start, end in rows)
        moments.append(TruthMoment(qid, query, video, windows, duration, line.where))
    return TruthFile(QVHIGHLIGHTS, tuple(moments))


def _longreel_predictions(lines: list[_Line]) -> PredictionFile:
    predictions = []
    for line in lines:
        video, query = line.text("video"), line.text("query")
        peak = line.seconds("peak") if "peak" in line else None
        numbers = [line.seconds("start"), line.seconds("end"), line.seconds("score")]
        predictions.append(line.prediction(query_id_of(video, query), video, numbers, peak))
    return PredictionFile(LONGREEL, tuple(predictions), tuple(dict.fromkeys(p.query_id for p in predictions)))


def _qvhighlights_predictions(lines: list[_Line]) -> PredictionFile:
    predictions: list[Prediction] = []
    query_ids, once = [], _Once()
    for line in lines:
        qid = line.qid()
        once(qid, line, f"qid {qid}")
        query_ids.append(qid)
        video = line.text("vid") if "vid" in line else ""
        for numbers in line.rows("pred_relevant_windows", 3, "[start, end, score]"):
            predictions.append(line.prediction(qid, video, numbers))
    return PredictionFile(QVHIGHLIGHTS, tuple(predictions), tuple(query_ids))
