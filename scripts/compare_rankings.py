"""Would another ranking of moments find more than the best vector does? Measured on films made of photographs.

The photographs of Flickr8k's split val become films of 20 each, in three kinds:

    hold    each photograph stands still for 4 s
    pan     a part of it for 5 to 8 s, under a moving, zooming, noisy camera
    strip   the camera passes along 20 side by side, 4 s for each, without a cut

A model makes a library of each kind, and each of the 5,000 sentences is asked of the whole library. What counts is how
often the middle of the best vector (or window) lies in its photograph; beside it stands how many sentences a ranking
wins from and loses to that of the best vector, and how often luck alone would split those as unevenly (sentences of one
photograph are not independent, so luck is rather understated). With --store and --truth a library of one's own is asked
too.

Examples:

    python scripts/compare_rankings.py --packs packs --work films
    python scripts/compare_rankings.py --packs packs --work films --store longreel-store --truth moments.jsonl

Films and libraries stay in --work; the same command uses them again. The table goes to stdout in Markdown.

Shapes: V vectors of a library, Q sentences, D width of the joint space, H x W pixels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.background_queries import background_queries
from pipeline.evaluation.baseline import PooledWindows, pool_video
from pipeline.evaluation.certainty import Difference
from pipeline.evaluation.library import match_videos
from pipeline.evaluation.moments import TruthMoment, read_truth
from pipeline.evaluation.packs import ImageTextPack
from pipeline.evaluation.retrieval import encode_sentences
from pipeline.index_kinds import unit_rows
from pipeline.library import Library
from pipeline.media import Span
from pipeline.sources.writing import write_video

Floats = npt.NDArray[np.floating[Any]]
Picture = npt.NDArray[np.uint8]

SIDE = 96
PHOTOGRAPHS = 20  # of a film
RATE = 10
HOLD_SECONDS = 4.0


@dataclass(frozen=True)
class Vectors:
    """All of a library: ``rows [V, D]`` of unit length, whose video and segment ``owner`` and ``segment [V]`` are."""

    rows: Floats
    owner: npt.NDArray[Any]
    segment: npt.NDArray[Any]
    weight: Floats
    start_seconds: Floats
    end_seconds: Floats

    @property
    def middle(self) -> Floats:
        return (self.start_seconds + self.end_seconds) / 2


# -- films -----------------------------------------------------------------------------------------------------------


def hold(pictures: Sequence[Picture], chance: np.random.Generator) -> tuple[list[Picture], list[Span]]:
    count = round(HOLD_SECONDS * RATE)
    spans = [Span(i * HOLD_SECONDS, (i + 1) * HOLD_SECONDS) for i in range(len(pictures))]
    return [picture for picture in pictures for _ in range(count)], spans


def pan(pictures: Sequence[Picture], chance: np.random.Generator) -> tuple[list[Picture], list[Span]]:
    import cv2

    frames: list[Picture] = []
    spans = []
    for picture in pictures:
        seconds = float(chance.integers(5, 9))
        begin, end = chance.uniform(0.45, 0.95, 2)  # of the side that is seen
        first, last = chance.uniform(0, 1 - begin, 2), chance.uniform(0, 1 - end, 2)
        gain = chance.uniform(0.8, 1.15)
        spans.append(Span(len(frames) / RATE, len(frames) / RATE + seconds))
        for turn in np.linspace(0, 1, round(seconds * RATE)):
            size, corner = (begin + (end - begin) * turn) * SIDE, (first + (last - first) * turn) * SIDE
            scale = SIDE / size
            moved = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])
            seen = cv2.warpAffine(picture, moved, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            frames.append(_noisy(seen * gain, chance))
    return frames, spans


def strip(pictures: Sequence[Picture], chance: np.random.Generator) -> tuple[list[Picture], list[Span]]:
    row = np.concatenate(list(pictures), axis=1)
    speed = SIDE / HOLD_SECONDS
    count = int((row.shape[1] - SIDE) / speed * RATE)
    lefts = [int(i * speed / RATE) for i in range(count)]
    half = HOLD_SECONDS / 2  # a photograph fills more than half of the picture
    spans = [
        Span(max(0.0, i * HOLD_SECONDS - half), min(count / RATE, i * HOLD_SECONDS + half))
        for i in range(len(pictures))
    ]
    return [_noisy(row[:, left : left + SIDE], chance) for left in lefts], spans


FILMS: dict[str, Callable[..., tuple[list[Picture], list[Span]]]] = {"hold": hold, "pan": pan, "strip": strip}


def _noisy(picture: Floats | Picture, chance: np.random.Generator) -> Picture:
    noise = chance.normal(0, 6, (SIDE, SIDE, 1))
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def make_films(kind: str, pack: ImageTextPack, folder: Path, split: str = "val") -> list[TruthMoment]:
    """Films of a kind, where they are not there yet, and the moment of every sentence."""
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(list(FILMS).index(kind)).permutation(pack.split(split))
    truth = []
    for number, first in enumerate(range(0, len(order) - PHOTOGRAPHS + 1, PHOTOGRAPHS)):
        chosen = order[first : first + PHOTOGRAPHS].tolist()
        name = f"{kind}-{number:02d}.mp4"
        frames, spans = FILMS[kind]([pack.picture(i) for i in chosen], np.random.default_rng([number, 7]))
        if not (folder / name).is_file():
            write_video(folder / name, frames, rate=RATE)
        truth += [
            TruthMoment(f"{name} {i} {k}", text, name, (span,))
            for i, span in zip(chosen, spans, strict=True)
            for k, text in enumerate(pack.rows[i]["captions"])
        ]
    return truth


# -- rankings --------------------------------------------------------------------------------------------------------


def vectors_of(library: Library) -> Vectors:
    parts: list[tuple[Any, ...]] = []
    for number, video in enumerate(record for record in library.videos() if record.vectors):
        rows = library.catalog.vectors_of(video.id)
        starts = [segment.span.start_seconds for segment in library.catalog.segments_of(video.id)]
        middle = (rows.start_seconds + rows.end_seconds) / 2
        segment = np.searchsorted(np.array(starts), middle, side="right") + 1_000_000 * number
        owner = np.array([video.id] * len(rows))
        units = unit_rows(rows.embedding).astype(np.float64)
        parts.append((units, owner, segment, rows.weight, rows.start_seconds, rows.end_seconds))
    return Vectors(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def near(vectors: Vectors, seconds: float, alike: float | None = None) -> Floats:
    """Each vector's mean with those of its video that begin or end within so many seconds of its middle, ``[V, D]`` of
    unit length; with ``alike`` each counts the less, the less it is like it."""
    result = np.empty_like(vectors.rows)
    for video in np.unique(vectors.owner):
        mine = np.flatnonzero(vectors.owner == video)
        rows, middle = vectors.rows[mine], vectors.middle[mine][:, None]
        away = np.maximum(vectors.start_seconds[mine] - middle, middle - vectors.end_seconds[mine])
        share = (away <= seconds) * vectors.weight[mine]
        if alike is not None:
            share = share * np.exp((rows @ rows.T - 1) / alike)
        result[mine] = share @ rows
    return unit_rows(result)


def by_segment(vectors: Vectors) -> Floats:
    """The mean of each vector's segment, ``[V, D]`` of unit length."""
    _, number = np.unique(vectors.segment, return_inverse=True)
    mean = np.zeros((int(number.max()) + 1, vectors.rows.shape[1]))
    np.add.at(mean, number, vectors.rows * vectors.weight[:, None])
    return unit_rows(mean)[number]


def rankings(queries: Floats, vectors: Vectors, bank: Floats) -> Iterator[tuple[str, Floats]]:
    """Names and scores ``[Q, V]``; the first is that of ``longreel query``."""
    rows = vectors.rows
    best, question, usual = queries @ rows.T, bank.mean(axis=0), rows.mean(axis=0)
    yield "the best vector", best
    yield "half its segment's mean", (best + queries @ by_segment(vectors).T) / 2
    for seconds in (1.0, 2.5, 5.0):
        yield f"half the mean within {seconds:g} s", (best + queries @ near(vectors, seconds).T) / 2
    yield "mean of alike ones within 20 s", queries @ near(vectors, 20.0, 0.1).T
    yield "less half the mean question", (queries - question / 2) @ rows.T
    yield "less the mean question", (queries - question) @ rows.T
    yield "less half the mean vector", queries @ unit_rows(rows - usual / 2).T
    yield "less the mean vector", queries @ unit_rows(rows - usual).T


def compare(library: Library, truth: Sequence[TruthMoment]) -> dict[str, list[bool]]:
    """For each ranking, which of the truth's sentences find their moment first in all of the library."""
    records = {name: record.id for name, record in match_videos(library, truth).items()}
    queries = unit_rows(encode_sentences(library.encoder, [moment.query for moment in truth])[0].astype(np.float64))
    bank = encode_sentences(library.encoder, background_queries())[0].astype(np.float64)
    vectors = vectors_of(library)

    def right(moment: TruthMoment, video: str, at: float) -> bool:
        return records[moment.video] == video and any(span.contains(at) for span in moment.spans)

    found = {}
    for name, scores in rankings(queries, vectors, bank):
        first = scores.argmax(axis=1)
        places = zip(vectors.owner[first], vectors.middle[first], strict=True)
        found[name] = [right(moment, *place) for moment, place in zip(truth, places, strict=True)]
    windows = PooledWindows([pool_video(library.catalog, v.id) for v in library.videos() if v.vectors])
    answers = [windows.nearest(query.astype(np.float32), 1)[0] for query in queries]
    found["mean-pooled windows"] = [
        right(moment, video, (span.start_seconds + span.end_seconds) / 2)
        for moment, (video, span, _) in zip(truth, answers, strict=True)
    ]
    return found


def table(results: dict[str, dict[str, list[bool]]]) -> str:
    """In Markdown, a column for each library."""
    names = list(next(iter(results.values())))
    lines = [f"| ranking | {' | '.join(results)} |", "|---" * (len(results) + 1) + "|"]
    for name in names:
        cells = []
        for found in results.values():
            cell = f"{100 * np.mean(found[name]):.1f}"
            if name != names[0]:
                one = Difference.of(found[name], found[names[0]])
                cell += f" (+{one.first_alone} -{one.second_alone}, luck {one.luck:.2g})"
            cells.append(cell)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", required=True, type=Path, metavar="FOLDER", help="with the pack flickr8k")
    parser.add_argument("--work", required=True, type=Path, metavar="FOLDER", help="for films and libraries")
    parser.add_argument("--model", default="tiny", metavar="NAME", help="(%(default)s)")
    parser.add_argument("--kinds", nargs="+", default=list(FILMS), choices=list(FILMS), help="of films (all)")
    parser.add_argument("--store", type=Path, metavar="DIR", help="a library to ask too, with --truth")
    parser.add_argument("--truth", type=Path, metavar="FILE", help="its right moments, JSONL")
    options = parser.parse_args(arguments)
    if (options.store is None) != (options.truth is None):
        parser.error("--store and --truth go together")
    results = {}
    pack = ImageTextPack.open(options.packs, "flickr8k")
    for kind in options.kinds:
        print(f"films of kind {kind}", file=sys.stderr, flush=True)
        truth = make_films(kind, pack, options.work / kind)
        with Library.open(options.work / f"library-{kind}", model=options.model) as library:
            for item in library.add(options.work / kind):
                if item.error is not None:
                    raise SystemExit(f"{item.uri}: {item.error}")
            results[kind] = compare(library, truth)
    if options.store is not None:
        with Library.open(options.store, create=False) as library:
            results[options.store.name] = compare(library, read_truth(options.truth))
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
