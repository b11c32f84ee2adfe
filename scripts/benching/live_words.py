"""Words of a stream whose scenes change without a cut: how often they change, and how right they are.

Photographs pass under a moving camera and fade into each other, so most windows end at their limit. A window's words
are scored against what people wrote of the photograph that is seen in its middle.

Shapes: n photographs, S x S pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pipeline.live.digest import ClosedContent
    from pipeline.media import Frame

__all__ = ["WAYS", "Way", "Words", "fading", "said_over", "windows_of"]

HOLD_SECONDS, FADE_SECONDS = 10.0, 2.0
_FPS = 4
_ROOM = 16  # pixels that the camera may move by, both ways together
_TIME_BASE = Fraction(1, 1_000_000)


@dataclass(frozen=True)
class Way:
    """How a stream's windows are captioned: ``margin`` ``None`` is each for itself, as if there were no stream."""

    margin: float | None
    back_seconds: float = 0.0


WAYS = (Way(None), Way(0.0), Way(0.05), Way(0.1), Way(0.2), Way(0.4), Way(0.1, 12.0))


@dataclass(frozen=True)
class Words:
    """What was said over a film: each window's words, and how many of them were new."""

    texts: tuple[str, ...]
    middles: tuple[float, ...]
    new: int


def fading(pictures: npt.NDArray[np.uint8], seed: int = 0) -> Iterator[Frame]:
    """A film of ``pictures [n, S, S, 3]``, each for ten seconds, the last two of which fade into the next."""
    import cv2

    from pipeline.media import Frame

    chance = np.random.default_rng(seed)
    side = pictures.shape[1]
    large = [cv2.resize(picture, (side + _ROOM, side + _ROOM)) for picture in pictures]

    def view(number: int, seconds: float) -> npt.NDArray[np.float32]:
        phase = seconds / HOLD_SECONDS - number
        left, top = (round(_ROOM / 2 * (1 + wave)) for wave in (np.sin(6 * phase), np.cos(4 * phase)))
        seen: npt.NDArray[np.float32] = large[number][top : top + side, left : left + side].astype(np.float32)
        return seen

    for count in range(round(len(pictures) * HOLD_SECONDS * _FPS)):
        seconds = count / _FPS
        number = int(seconds / HOLD_SECONDS)
        image = view(number, seconds)
        faded = (seconds - number * HOLD_SECONDS - (HOLD_SECONDS - FADE_SECONDS)) / FADE_SECONDS
        if faded > 0 and number + 1 < len(pictures):
            image = (1 - faded) * image + faded * view(number + 1, seconds)
        noisy = np.clip(image + chance.normal(0, 2, image.shape), 0, 255).astype(np.uint8)
        yield Frame(noisy, round(seconds / _TIME_BASE), round(1 / _FPS / _TIME_BASE), _TIME_BASE)


def shown_at(seconds: float, count: int) -> int:
    """Which photograph is seen best at a time."""
    return min(count - 1, int((seconds + FADE_SECONDS / 2) / HOLD_SECONDS))


def windows_of(frames: Iterator[Frame], encoder: Any, window_seconds: float) -> list[ClosedContent]:
    """The complete windows that a live stream makes of a film."""
    from datetime import datetime, timezone

    from pipeline.ingest import IngestOptions
    from pipeline.live.digest import LiveDigest
    from pipeline.live.options import WindowOptions
    from pipeline.live.types import Connection, LiveState
    from pipeline.live.watcher import LiveWatcher, blocks
    from pipeline.sources.live import StateChange

    ingest, window = IngestOptions(), WindowOptions(max_seconds=window_seconds)
    digest = LiveDigest(encoder, ingest.digest, window, tokens=True)
    watcher = LiveWatcher(ingest.sampling, ingest.gate, ingest.segments, window)
    now = datetime(2026, 1, 1, tzinfo=timezone.utc)

    def messages() -> Iterator[Any]:
        yield Connection(0, 0.0, now)
        yield StateChange(LiveState.PLAYING, "", now)
        yield from frames
        yield StateChange(LiveState.ENDED, "", now)

    return [content for block in blocks(watcher, messages()) for content in digest.take([("film", block)])[0].closed]


def said_over(contents: Sequence[ClosedContent], captioner: Any, fingerprint: str, way: Way) -> Words:
    """The words for each window, and how many are not those of the window before."""
    from pipeline.digest import TokenOptions
    from pipeline.live.captions import LiveCaptioner
    from pipeline.live.options import CaptionWindowOptions

    options = CaptionWindowOptions(margin=way.margin or 0.0, back_seconds=way.back_seconds)
    known = captioner if way.margin is not None else _Stateless(captioner)
    words = LiveCaptioner(known, fingerprint, options, TokenOptions())
    captions = [caption for content in contents for caption in words.caption([("film", content)])]
    return Words(
        tuple(caption.text for caption in captions),
        tuple((caption.span.start_seconds + caption.span.end_seconds) / 2 for caption in captions),
        sum(not caption.extends for caption in captions),
    )


class _Stateless:
    """A captioner that is not known to know of streams."""

    def __init__(self, captioner: Any) -> None:
        self.info, self.caption, self.tokens = captioner.info, captioner.caption, captioner.tokens


def words_part(model: str, packs: Path, photographs: int, report: Any) -> None:
    """The part of the benchmark: windows of 5 and of 10 s, every way, beside each window for itself."""
    from encoders import load_encoder
    from encoders.captioning import load_captioner
    from pipeline.evaluation.captions import caption_scores
    from scripts.benching.tables import progress
    from scripts.training.photographs import read_sentences

    chance = np.random.default_rng(0)
    rows, values = [], []
    with load_encoder(model) as encoder, load_captioner(model) as captioner:
        photos = read_sentences(packs, "val", encoder.info.image_height)
        chosen = chance.permutation(len(photos.keys))[:photographs]
        pictures = photos.pictures[chosen].numpy()
        for window_seconds in (5.0, 10.0):
            contents = windows_of(fading(pictures), encoder, window_seconds)
            base: npt.NDArray[np.float64] | None = None
            for way in WAYS:
                words = said_over(contents, captioner, encoder.info.fingerprint, way)
                progress(f"windows of {window_seconds:g} s, {way}: {words.new} of {len(words.texts)} new")
                people = [photos.sentences[chosen[shown_at(middle, len(chosen))]] for middle in words.middles]
                scores = caption_scores(words.texts, people)
                each = np.array(scores.per_caption)
                base = each if base is None else base
                low, high = _difference(each - base, chance)
                rows.append(
                    [
                        f"{window_seconds:g} s",
                        "each window for itself" if way.margin is None else f"{way.margin:g}",
                        "-"
                        if way.margin is None
                        else "its window"
                        if not way.back_seconds
                        else f"{way.back_seconds:g} s",
                        f"{words.new} of {len(words.texts)}",
                        f"{scores.cider:.1f}",
                        "-" if way.margin is None else f"{(each - base).mean():+.1f} ({low:+.1f} to {high:+.1f})",
                    ]
                )
                values.append(
                    {
                        "window": window_seconds,
                        "margin": way.margin,
                        "back": way.back_seconds,
                        "new": words.new,
                        "windows": len(words.texts),
                        "cider": scores.cider,
                    }
                )
    report.section(
        "Words that stand while a scene goes on",
        f"{photographs} photographs of flickr8k val under a moving camera, {HOLD_SECONDS:g} s each, that fade into "
        f"each other: most windows end at their limit. {model}; seed 0. The words before stand unless others are "
        "likelier by the margin (`live.captions.margin`), in nats a text token.",
    )
    report.table(
        "Changes of words, and how right they are",
        ["window", "margin", "looks back", "new words", "CIDEr", "beside each for itself (95%)"],
        rows,
        "CIDEr against what people wrote of the photograph in the window's middle; the interval is a bootstrap over "
        "windows.",
        values,
    )


def _difference(each: npt.NDArray[np.float64], chance: np.random.Generator) -> tuple[float, float]:
    means = each[chance.integers(0, len(each), (2000, len(each)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
