"""How often a library answers right: every right moment's query is asked of it, and judged beside chance and beside
mean-pooled windows.

Each query is asked twice: of its own video alone (as QVHighlights asks), and of the whole library, where an answer in
another video is wrong. Scores are those of :mod:`pipeline.evaluation.scores`, in percent; chance is that of
:mod:`pipeline.evaluation.chance`, the plain rival that of :mod:`pipeline.evaluation.baseline`. Latency is the time of
``Library.query``, the encoding of the words included, after one query that is not timed.

Shapes: D width of the joint space.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from encoders.errors import EncoderInputError, TextTooLong
from pipeline.catalog import VideoRecord
from pipeline.errors import InputError, OptionError, TruthError, UnknownVideo
from pipeline.evaluation.baseline import LONGEST_SECONDS, PooledWindows, pool_video
from pipeline.evaluation.certainty import Difference, interval, peaks_compared
from pipeline.evaluation.chance import Chance, Place, chance_of
from pipeline.evaluation.moments import Prediction, TruthMoment
from pipeline.evaluation.scores import ANSWERS, RECALL_IOU, MomentScores, score_moments
from pipeline.media import Span

if TYPE_CHECKING:
    from encoders.base import Encoder
    from pipeline.library import Library

__all__ = [
    "Latency",
    "LibraryScores",
    "Progress",
    "SettingScores",
    "encode_queries",
    "evaluate_library",
    "match_videos",
]

Progress = Callable[[str, float, "float | None"], None]
"""Told what is being done, how much of it is done, and of how much (``None``: nobody knows)."""

_LATE_SECONDS = 1.0  # a right span may reach so far beyond a video: durations in files are rounded


@dataclass(frozen=True)
class Latency:
    """Milliseconds that half and 95% of the queries took at most; ``None`` where none was answered."""

    p50_ms: float | None
    p95_ms: float | None

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latency:
        if not seconds:
            return cls(None, None)
        return cls(*(float(value) * 1000 for value in np.percentile(seconds, (50, 95))))

    def to_dict(self) -> dict[str, Any]:
        return {"p50_ms": _rounded(self.p50_ms), "p95_ms": _rounded(self.p95_ms)}


@dataclass(frozen=True)
class SettingScores:
    """One way of asking: the library's scores, those of mean-pooled windows, chance, and how long an answer took."""

    scores: MomentScores
    baseline: MomentScores
    chance: Chance
    latency: Latency
    predictions: tuple[Prediction, ...] = ()

    @property
    def peak_interval(self) -> tuple[float, float]:
        """Percent between which the rate of peaks inside lies, at 95 %; see :mod:`pipeline.evaluation.certainty`."""
        return interval(sum(score.peak_inside for score in self.scores.per_query), self.scores.queries)

    @property
    def beside_baseline(self) -> Difference:
        """The peaks inside, beside those of mean-pooled windows."""
        return peaks_compared(self.scores, self.baseline)

    def to_dict(self) -> dict[str, Any]:
        chance = {f"R1@{level:g}": round(value, 2) for level, value in self.chance.r1.items()}
        return {
            **self.scores.to_dict(),
            "peak_inside_95": [round(value, 2) for value in self.peak_interval],
            "peak_inside_beside_baseline": self.beside_baseline.to_dict(),
            "chance": {**chance, "peak_inside": round(self.chance.peak_inside, 2)},
            "baseline": self.baseline.to_dict(),
            "latency": self.latency.to_dict(),
        }


@dataclass(frozen=True)
class LibraryScores:
    """A library judged.

    Attributes:
        random_weights: the model is untrained, so words mean nothing to it and scores are about chance.
        hours: of video that the library covers; ``vectors_per_hour`` is over these.
        in_video, in_library: queries asked of their own video, and of all.
        refused: queries with more words than the model reads; they count as missed.
    """

    model: str
    random_weights: bool
    videos: int
    hours: float
    vectors: int
    limit: int
    baseline_seconds: float
    in_video: SettingScores
    in_library: SettingScores
    refused: tuple[str, ...] = ()

    @property
    def vectors_per_hour(self) -> float:
        return self.vectors / self.hours if self.hours else 0.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.model,
            "random_weights": self.random_weights,
            "videos": self.videos,
            "hours": round(self.hours, 4),
            "vectors": self.vectors,
            "vectors_per_hour": round(self.vectors_per_hour, 1),
            "limit": self.limit,
            "baseline_seconds": self.baseline_seconds,
            "refused": list(self.refused),
            "in_video": self.in_video.to_dict(),
            "in_library": self.in_library.to_dict(),
        }


def evaluate_library(
    library: Library,
    truth: Sequence[TruthMoment],
    *,
    limit: int = ANSWERS,
    thresholds: Sequence[float] = RECALL_IOU,
    baseline_seconds: float = LONGEST_SECONDS,
    progress: Progress | None = None,
) -> LibraryScores:
    """Ask a library every query of ``truth`` and judge its answers.

    Args:
        truth: its videos are named by id, URI or name, with or without the ending.
        limit: how many answers count.
        thresholds: IoU from which an answer is right in R@k.
        baseline_seconds: what a mean-pooled window lasts at most.
        progress: told how many queries of how many are answered.

    Raises:
        TruthError: no truth, a right span that begins after its video ends, or a query that the model does not take.
        UnknownVideo: the library lacks videos of the truth; names them all, and near names.
        InputError: nothing is stored of a video of the truth.
        OptionError: a threshold, limit or length outside what is allowed.
        EncoderError: the model cannot be loaded.
    """
    if not truth:
        raise TruthError("no right moments to judge by")
    if limit < 1:
        raise OptionError(f"the limit of answers must be 1 or more, got {limit}")
    videos = match_videos(library, truth)
    everything = [record for record in library.videos() if record.vectors]
    windows = PooledWindows([pool_video(library.catalog, record.id, baseline_seconds) for record in everything])
    durations = {record.id: _duration(library, record) for record in everything}
    places = [Place(moment.spans, durations[videos[moment.video].id]) for moment in truth]
    for moment, place in zip(truth, places, strict=True):
        _check_fits(moment, place)
    vectors = encode_queries(library.encoder, truth)
    asked = _Asked(library, limit, windows, {record.id: record.name for record in everything})
    for i, (moment, vector) in enumerate(zip(truth, vectors, strict=True)):
        asked.ask(moment, vector, videos[moment.video].id)
        if progress is not None:
            progress("asking", i + 1, len(truth))
    whole = sum(durations.values())

    def setting(way: _Way, library_seconds: float | None) -> SettingScores:
        return SettingScores(
            scores=score_moments(truth, way.answers, thresholds=thresholds, limit=limit),
            baseline=score_moments(truth, way.baseline, thresholds=thresholds, limit=limit),
            chance=chance_of(places, way.lengths, thresholds, library_seconds=library_seconds, scale=100.0),
            latency=Latency.of(way.seconds),
            predictions=tuple(way.answers),
        )

    return LibraryScores(
        model=library.model,
        random_weights=library.manifest.random,
        videos=len(everything),
        hours=whole / 3600,
        vectors=sum(record.vectors for record in everything),
        limit=limit,
        baseline_seconds=baseline_seconds,
        in_video=setting(asked.in_video, None),
        in_library=setting(asked.in_library, whole),
        refused=tuple(asked.refused),
    )


def encode_queries(encoder: Encoder, truth: Sequence[TruthMoment]) -> list[npt.NDArray[np.float32] | None]:
    """Each query's vector ``[D]``, ``None`` for one with more words than the model reads. What it does not take is told
    before anything is asked.

    Raises:
        TruthError: a query that the model does not take; names file, line and text.
    """
    vectors: list[npt.NDArray[np.float32] | None] = []
    for moment in truth:
        try:
            vectors.append(np.asarray(encoder.encode_query([moment.query]), dtype=np.float32)[0])
        except TextTooLong:
            vectors.append(None)
        except EncoderInputError as error:
            place = moment.where or f"query {moment.query_id}"
            raise TruthError(f"{place}: {moment.query!r} cannot be asked of {encoder.info.name}: {error}") from error
    return vectors


def match_videos(library: Library, truth: Sequence[TruthMoment]) -> dict[str, VideoRecord]:
    """The library's record of each video that the truth names, by that name.

    Raises:
        UnknownVideo: those that are not there, or whose name fits several; the message has all, with near names.
        InputError: nothing is stored of one of them.
    """
    found: dict[str, VideoRecord] = {}
    missing: list[str] = []
    stems: dict[str, list[str]] = {}
    for record in library.videos():
        stems.setdefault(PurePath(record.name).stem, []).append(record.id)
    names = list(dict.fromkeys(moment.video for moment in truth))
    for name in names:
        try:
            found[name] = library.video(name)
        except UnknownVideo as error:
            ids = stems.get(name, [])
            if len(ids) != 1:  # QVHighlights names its videos without an ending
                missing.append(str(error))
                continue
            found[name] = library.video(ids[0])
    if missing:
        raise UnknownVideo(f"{len(missing)} of the {len(names)} videos of the truth: {'; '.join(missing)}")
    empty = [f"{record.name!r} ({record.state})" for record in found.values() if not record.vectors]
    if empty:
        raise InputError(f"nothing is stored of {', '.join(empty)}, so there is nothing to judge")
    return found


class _Way:
    """What came of one way of asking."""

    def __init__(self) -> None:
        self.answers: list[Prediction] = []
        self.baseline: list[Prediction] = []
        self.seconds: list[float] = []
        self.lengths: list[float] = []


class _Asked:
    """Asks a library and the pooled windows, in both ways."""

    def __init__(self, library: Library, limit: int, windows: PooledWindows, names: dict[str, str]) -> None:
        self._library, self._limit, self._windows, self._names = library, limit, windows, names
        self.in_video, self.in_library = _Way(), _Way()
        self.refused: list[str] = []

    def ask(self, moment: TruthMoment, vector: npt.NDArray[np.float32] | None, video: str) -> None:
        if vector is None:
            self.refused.append(moment.query)
            return
        if not self.in_video.seconds:  # untimed: opens the index, and whatever else is made once
            self._library.query(moment.query, limit=1)

        def answer(found: str, span: Span, score: float, peak_seconds: float) -> Prediction:
            # Another video may bear the name that the truth means by this one.
            name = moment.video if found == video else self._names.get(found, found)
            if found != video and name == moment.video:
                name = found
            return Prediction(moment.query_id, name, span.start_seconds, span.end_seconds, score, peak_seconds)

        for way, only in ((self.in_video, video), (self.in_library, None)):
            began = time.perf_counter()
            moments = self._library.query(moment.query, limit=self._limit, video=only)
            way.seconds.append(time.perf_counter() - began)
            for m in moments:
                way.answers.append(answer(m.video, Span(m.start_seconds, m.end_seconds), m.score, m.peak_seconds))
            way.lengths += [m.end_seconds - m.start_seconds for m in moments[:1]]
            for found, span, score in self._windows.nearest(vector, self._limit, only):
                way.baseline.append(answer(found, span, score, (span.start_seconds + span.end_seconds) / 2))


def _duration(library: Library, record: VideoRecord) -> float:
    """How long the video is; where nobody knows, to where its vectors reach."""
    if record.duration_seconds is not None:
        return record.duration_seconds
    return float(library.catalog.vectors_of(record.id).end_seconds.max())


def _check_fits(moment: TruthMoment, place: Place) -> None:
    for span in moment.spans:
        if span.start_seconds >= place.duration_seconds or span.end_seconds > place.duration_seconds + _LATE_SECONDS:
            raise TruthError(
                f"{moment.video}: the right span [{span.start_seconds:g}, {span.end_seconds:g}) of {moment.query!r} "
                f"lies outside the library's video, which lasts {place.duration_seconds:g} s"
            )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
