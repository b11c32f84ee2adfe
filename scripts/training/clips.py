"""Made-up clips with true sentences, for learning to read time: what moves which way, and what comes first.

They come from photographs (the camera pans, zooms, shakes; cuts and fades) and from drawn actors on plain grounds or
on photographs. Where only several frames in their order can decide, a clip has a *foil*: the opposite of its first
sentence, false of the clip and true of the clip backwards. The clips are the same for the same generator.

    python -m scripts.training.clips --out sheet.png

Shapes: n photographs, C clips, T frames, S side of a photograph and s of a frame in pixels; pictures are uint8 RGB.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline.errors import LongreelError, OptionError
from scripts.training.brush import COLOURS, Picture, apart, between
from scripts.training.camera import SHOTS, Photo, clean, cropped
from scripts.training.drawn import drawn_picture, ground
from scripts.training.plots import PLOTS, Shares, Stage, Told
from scripts.training.props import PROPS_BY_NAME
from scripts.training.scene_plots import MOVERS, SCENE_PLOTS
from scripts.training.things import FORMS, a

__all__ = ["DRAWING", "KINDS", "Clips", "made_clips", "test_clips"]

DRAWING = 1  # raised when what is drawn or said changes, so that clips kept from before are not taken for these

Seconds = npt.NDArray[np.float64]

# How often each kind is made. Those of SHOTS need photographs; cuts and fades take drawn pictures where there are none.
KINDS: dict[str, float] = {
    "hold": 6, "pan": 12, "zoom": 10, "shake": 3, "cut": 18, "fade": 7,
    "move": 10, "enter": 8, "appear": 5, "size": 5, "colour": 5, "path": 5, "two": 12, "meet": 4, "one by one": 3,
    "still": 3, "dance": 3, "scene": 10, "traffic": 6, "weather": 6, "busy": 3, "goes on": 3,
}  # fmt: skip
_DRAWN = (*PLOTS, *SCENE_PLOTS, "cut", "fade")
_MOVING = tuple(PROPS_BY_NAME[name] for name in MOVERS)
_MOST_WORDS = 11  # of a drawn picture in a cut
_LEAST_FRAMES = 4
_TEST_SEED = 20260


@dataclass(frozen=True)
class Clips:
    """Clips with what is true of them.

    Attributes:
        frames: ``[C, T, s, s, 3]`` uint8.
        start_seconds, end_seconds: ``[C, T]``, the span ``[start, end)`` of each frame in its clip's time.
        sentences: one or more true sentences for each clip.
        foils: the opposite of the first sentence, true of the clip backwards; None where one frame would decide, or
            the clip backwards is no other.
        kinds: which of KINDS each clip is.
    """

    frames: Picture
    start_seconds: Seconds
    end_seconds: Seconds
    sentences: list[list[str]]
    foils: list[str | None]
    kinds: list[str]

    def __post_init__(self) -> None:
        count = len(self.frames)
        lengths = [len(part) for part in (self.start_seconds, self.end_seconds, self.sentences, self.foils, self.kinds)]
        if any(length != count for length in lengths) or self.start_seconds.shape != self.frames.shape[:2]:
            raise ValueError(f"{count} clips of {self.frames.shape[1]} frames, but parts of {lengths} clips")

    def __len__(self) -> int:
        return len(self.frames)


def made_clips(
    photos: Picture | Sequence[Picture],
    sentences: Sequence[Sequence[str]],
    count: int,
    frames: int,
    size: int,
    generator: np.random.Generator,
    *,
    kinds: Mapping[str, float] | None = None,
) -> Clips:
    """Clips from photographs ``[n, S, S, 3]`` with their sentences, and of drawn things.

    ``kinds`` are how often each kind is made beside the others (KINDS where None); with fewer than two photographs
    only drawn things are shown. Frames (at least 4) do not always lie equally far apart.

    Raises:
        OptionError: an unknown kind, sentences for another number of photographs, or sizes that are not allowed.
    """
    if frames < _LEAST_FRAMES or size < 16 or count < 0:
        raise OptionError(f"{count} clips of {frames} frames of {size} pixels: at least 0 of 4 of 16 are allowed")
    if len(photos) != len(sentences):
        raise OptionError(f"{len(photos)} photographs with sentences for {len(sentences)}")
    wanted = dict(KINDS if kinds is None else kinds)
    if unknown := sorted(set(wanted) - set(KINDS)):
        raise OptionError(f"kinds {unknown}: {', '.join(KINDS)} are allowed")
    if len(photos) < 2:
        wanted = {kind: share for kind, share in wanted.items() if kind in _DRAWN}
    names, edges = tuple(wanted), np.cumsum(np.array(list(wanted.values()), np.float64))
    if not names or edges[-1] <= 0:
        raise OptionError(f"no kind of clip to make of {len(photos)} photographs: {kinds}")
    chosen = [names[int(np.searchsorted(edges, generator.random() * edges[-1], side="right"))] for _ in range(count)]
    return _make(photos, sentences, chosen, frames, size, generator)


def test_clips(count: int = 300, frames: int = 8, size: int = 96) -> Clips:  # noqa: PT028
    """The fixed set for measuring: drawn things alone, every kind in turn. Fewer are the first ones of more."""
    generator = np.random.default_rng(_TEST_SEED)
    chosen = [_DRAWN[i % len(_DRAWN)] for i in range(count)]
    return _make([], [], chosen, frames, size, generator)


test_clips.__test__ = False  # type: ignore[attr-defined]  # no test, though pytest would take it for one by its name


def _make(
    photos: Picture | Sequence[Picture],
    sentences: Sequence[Sequence[str]],
    chosen: list[str],
    frames: int,
    size: int,
    generator: np.random.Generator,
) -> Clips:
    count = len(chosen)
    pictures = np.empty((count, frames, size, size, 3), np.uint8)
    start, end = np.empty((count, frames)), np.empty((count, frames))
    told: list[Told] = []
    for number, kind in enumerate(chosen):
        start[number], end[number] = _spans(frames, generator)
        shares = (start[number] + end[number]) / 2 / end[number, -1]
        told.append(_one(kind, pictures[number], shares, photos, sentences, generator))
    return Clips(pictures, start, end, [each.sentences for each in told], [each.foil for each in told], chosen)


def _one(
    kind: str,
    frames: Picture,
    shares: Shares,
    photos: Picture | Sequence[Picture],
    sentences: Sequence[Sequence[str]],
    generator: np.random.Generator,
) -> Told:
    if kind in SHOTS:
        first, second = (_photo(photos, sentences, frames.shape[1], generator) for _ in range(2))
        while second.sentences == first.sentences:
            second = _photo(photos, sentences, frames.shape[1], generator)
        return SHOTS[kind](frames, shares, (first, second), generator)
    if kind in SCENE_PLOTS:
        return SCENE_PLOTS[kind](frames, shares, generator)
    return PLOTS[kind](frames, shares, _stage(photos, sentences, frames.shape[1], generator), generator)


def _spans(frames: int, generator: np.random.Generator) -> tuple[Seconds, Seconds]:
    """Spans without gaps, from 0: 1 to 16 seconds in all, in a third of the clips of unequal length."""
    length = float(np.exp(between(0.0, np.log(16.0), generator)))
    parts = np.ones(frames)
    if generator.random() < 0.33:
        parts += generator.uniform(-0.5, 0.8, frames)
    edges = np.concatenate([[0.0], np.cumsum(parts)]) / parts.sum() * length
    return edges[:-1], edges[1:]


def _photo(
    photos: Picture | Sequence[Picture], sentences: Sequence[Sequence[str]], size: int, generator: np.random.Generator
) -> Photo:
    """One of the photographs, or a drawn picture where there are none."""
    if len(photos) >= 2:
        number = int(generator.random() * len(photos))
        return Photo(np.asarray(photos[number]), sentences[number])
    picture = np.empty((size, size, 3), np.uint8)
    sentence = drawn_picture(picture, generator)
    while len(sentence.split()) > _MOST_WORDS:  # two of them make one sentence
        sentence = drawn_picture(picture, generator)
    return Photo(picture, [sentence], whole=True)


def _stage(
    photos: Picture | Sequence[Picture], sentences: Sequence[Sequence[str]], size: int, generator: np.random.Generator
) -> Stage:
    """What drawn actors are on: a photograph in a third of the clips, where there are any."""
    picture = np.empty((size, size, 3), np.uint8)
    things = FORMS if generator.random() < 0.7 else _MOVING
    if len(photos) >= 2 and generator.random() < 0.35:
        photo = _photo(photos, sentences, size, generator)
        cropped(photo.picture, (0.5, 0.5, 1.0, 1.0), picture)
        text = min((clean(sentence) for sentence in photo.sentences), key=len)
        over = f"over {text}" if text.startswith("a photo of") else f"over a photo: {text}"
        words = ("over a photo", "in front of a photo", "over a photograph")
        mean = picture.mean(axis=(0, 1))
        near = tuple(name for name, rgb in COLOURS.items() if apart(rgb, mean) < 60)
        return Stage(picture, near, (*words, over) if len(text.split()) < 12 else words, things)
    under = ground(picture, generator, plain=generator.random() < 0.5)
    return Stage(picture, under.colours, tuple(f"on {a(words)}" for words in under.words), things)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A contact sheet of made-up clips with their sentences.")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the picture to write (.png, .jpg)")
    parser.add_argument("--count", type=int, default=24, metavar="N", help="clips to show (%(default)s)")
    parser.add_argument("--frames", type=int, default=8, metavar="T", help="frames of each (%(default)s)")
    parser.add_argument("--kind", action="append", choices=tuple(KINDS), help="this kind alone; may be given again")
    parser.add_argument("--photos", type=Path, metavar="PACK", help="a pack of photographs (NAME.npz) to use too")
    parser.add_argument("--test-set", action="store_true", help="the fixed set for measuring")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    from scripts.training.clip_sheet import write_sheet

    try:
        write_sheet(options.out, _asked(options))
    except (LongreelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _asked(options: argparse.Namespace) -> Clips:
    """The clips that the command line asks for."""
    if options.test_set:
        return test_clips(options.count, options.frames)
    generator = np.random.default_rng(options.seed)
    photos: list[Picture] = []
    sentences: list[list[str]] = []
    if options.photos is not None:
        from pipeline.evaluation.packs import ImageTextPack

        pack = ImageTextPack.open(options.photos)
        some = generator.permutation(pack.split("train"))[:400]
        photos = [pack.picture(int(i)) for i in some]
        sentences = [pack.rows[i]["captions"] for i in some]
    kinds = dict.fromkeys(options.kind, 1.0) if options.kind else None
    return made_clips(photos, sentences, options.count, options.frames, 96, generator, kinds=kinds)


if __name__ == "__main__":
    raise SystemExit(main())
