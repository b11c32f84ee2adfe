"""Clips from still photographs: the camera pans, zooms or shakes over one; cuts and fades lead from one to another.

Shapes: photographs ``[S, S, 3]`` uint8 with their sentences; frames ``[T, s, s, 3]``, shares ``[T]`` as in plots.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from scripts.training.brush import Picture, between, pick
from scripts.training.plots import Shares, Told, progress, wordings

__all__ = ["SHOTS", "Photo", "ShotPlot", "clean", "cropped"]


@dataclass(frozen=True)
class Photo:
    """A still picture with true sentences; one that is ``whole`` is not cropped (its sentences may name places)."""

    picture: Picture
    sentences: Sequence[str]
    whole: bool = False


Box = tuple[float, float, float, float]  # x and y of the middle, width, height: shares of the side
ShotPlot = Callable[[Picture, Shares, Sequence[Photo], np.random.Generator], Told]


def clean(sentence: str) -> str:
    """A sentence as a part of others: without a full stop, its first letter small."""
    text = re.sub(r"\s+([,.;!?])", r"\1", " ".join(sentence.split())).rstrip(" .!,;:")
    word = text.split(" ", 1)[0]
    return text if word.isupper() and len(word) > 1 else text[:1].lower() + text[1:]


def _words(photo: Photo, generator: np.random.Generator, most: int) -> str:
    """One of the photograph's sentences of at most so many words, or the shortest."""
    texts = [clean(text) for text in photo.sentences]
    fitting = [text for text in texts if len(text.split()) <= most]
    return pick(fitting, generator) if fitting else min(texts, key=lambda text: len(text.split()))


def cropped(picture: Picture, box: Box, out: Picture) -> None:
    """The part of a picture within the box, drawn into ``out [s, s, 3]``."""
    side, size = picture.shape[0], out.shape[0]
    x, y, wide, high = box
    # From the middle of a pixel of ``out`` to the place in the picture.
    across, down = wide * side / size, high * side / size
    matrix = np.array(
        [[across, 0, (x - wide / 2) * side + across / 2 - 0.5], [0, down, (y - high / 2) * side + down / 2 - 0.5]]
    )
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    if max(across, down) > 1.6:  # more than a pixel for each: what lies between would be left out
        area = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
        return cropped(area, box, out)
    cv2.warpAffine(picture, matrix, (size, size), dst=out, flags=how, borderMode=cv2.BORDER_REFLECT_101)
    return None


def _shape(share: float, generator: np.random.Generator) -> tuple[float, float]:
    """Width and height of a box of about ``share`` of the side, its aspect from 0.67 to 1.5."""
    aspect = float(np.exp(between(-0.2, 0.2, generator)))
    return min(share * aspect, 1.0), min(share / aspect, 1.0)


def _within(middle: float, length: float) -> float:
    return min(max(middle, length / 2), 1 - length / 2)


def _somewhere(photo: Photo, generator: np.random.Generator) -> Box:
    """A box for a shot that stays: most of the photograph."""
    if photo.whole:
        return (0.5, 0.5, 1.0, 1.0)
    wide, high = _shape(between(0.72, 1.0, generator), generator)
    x, y = generator.random(2)
    return (_within(float(x), wide), _within(float(y), high), wide, high)


# -- one photograph --------------------------------------------------------------------------------------------------


def _hold(frames: Picture, shares: Shares, photos: Sequence[Photo], generator: np.random.Generator) -> Told:
    """Nothing happens."""
    photo = photos[0]
    box = _somewhere(photo, generator)
    cropped(photo.picture, box, frames[0])
    frames[1:] = frames[0]
    text = _words(photo, generator, 18)
    still = (f"{text}, nothing moves", f"a still picture: {text}", f"nothing happens: {text}")
    own = [clean(sentence) for sentence in photo.sentences]
    said = [own[int(i)] for i in generator.permutation(len(own))[:3]]
    if generator.random() < 0.3:
        said.insert(0, pick(still, generator))
    return Told(list(dict.fromkeys(said)), None)


_PAN = (
    "the camera pans {way}: {p}",
    "{p}, the camera pans {way}",
    "the camera moves {way} over the picture: {p}",
    "panning {way}: {p}",
    "{p}, seen by a camera that turns {way}",
)
_ZOOM = (
    "the camera zooms {way}: {p}",
    "{p}, the camera zooms {way}",
    "zooming {way}: {p}",
    "{p}, the picture zooms {way}",
)
_PAN_STEPS = {"to the left": (-1, 0), "to the right": (1, 0), "up": (0, -1), "down": (0, 1)}
_PAN_BACK = {"to the left": "to the right", "to the right": "to the left", "up": "down", "down": "up"}


def _camera(templates: tuple[str, ...], way: str, back: str, photo: Photo, generator: np.random.Generator) -> Told:
    """Sentences with what the camera does, and the photograph's own."""
    numbers, text = wordings(len(templates), generator), _words(photo, generator, 16)
    said = [templates[i].format(way=way, p=text) for i in numbers[:2]]
    return Told([*said, _words(photo, generator, 99)], templates[numbers[0]].format(way=back, p=text))


def _pan(frames: Picture, shares: Shares, photos: Sequence[Photo], generator: np.random.Generator) -> Told:
    """The camera looks at a part and moves on, in one direction."""
    photo, way = photos[0], pick(tuple(_PAN_STEPS), generator)
    step = _PAN_STEPS[way]
    wide, high = _shape(between(0.45, 0.68, generator), generator)
    reach = ((1 - wide) / 2, (1 - high) / 2)
    drift = between(-0.15, 0.15, generator)  # a little across its way
    far = progress(shares, 0, len(shares) - 1, generator) * 2 - 1
    for t, along in enumerate(far):
        x = 0.5 + reach[0] * (step[0] * along if step[0] else drift * along)
        y = 0.5 + reach[1] * (step[1] * along if step[1] else drift * along)
        cropped(photo.picture, (float(x), float(y), wide, high), frames[t])
    return _camera(_PAN, way, _PAN_BACK[way], photo, generator)


def _zoom(frames: Picture, shares: Shares, photos: Sequence[Photo], generator: np.random.Generator) -> Told:
    """The camera comes nearer or draws back."""
    photo, inwards = photos[0], generator.random() < 0.5
    wide, high = _shape(between(0.9, 1.0, generator), generator)
    near = between(0.42, 0.6, generator)
    target = (between(0.4, 0.6, generator), between(0.4, 0.6, generator))
    far = progress(shares, 0, len(shares) - 1, generator)
    for t, share in enumerate(far if inwards else 1 - far):
        scale = float(near**share)  # as much in each second
        box = (wide * scale, high * scale)
        x, y = (_within(0.5 + (middle - 0.5) * float(share), part) for middle, part in zip(target, box, strict=True))
        cropped(photo.picture, (x, y, *box), frames[t])
    return _camera(_ZOOM, "in" if inwards else "out", "out" if inwards else "in", photo, generator)


_SHAKE = (
    "the camera shakes: {p}",
    "{p}, the camera shakes",
    "{p}, filmed with a shaking camera",
    "a shaky picture of {p}",
)


def _shake(frames: Picture, shares: Shares, photos: Sequence[Photo], generator: np.random.Generator) -> Told:
    """A camera that is held in the hand."""
    photo = photos[0]
    wide, high = _shape(between(0.7, 0.85, generator), generator)
    for t in range(len(frames)):
        x, y = 0.5 + generator.uniform(-0.07, 0.07, 2)
        cropped(photo.picture, (_within(float(x), wide), _within(float(y), high), wide, high), frames[t])
    text = _words(photo, generator, 18)
    said = [_SHAKE[i].format(p=text) for i in wordings(3, generator)[:2]]
    return Told([*said, _words(photo, generator, 99)], None)


# -- two photographs -------------------------------------------------------------------------------------------------

_CUT = (
    "first {one}, then {two}",
    "{one}, then {two}",
    "{one}, then a cut to {two}",
    "at first {one}, after that {two}",
    "{one}, followed by {two}",
)
_FADE = ("{one} fades into {two}", "first {one}, then slowly {two}", "{one} turns into {two}", "from {one} to {two}")


def _follow(fade: bool) -> ShotPlot:
    templates = _FADE if fade else _CUT

    def plot(frames: Picture, shares: Shares, photos: Sequence[Photo], generator: np.random.Generator) -> Told:
        one, two = photos[0], photos[1]
        count = len(frames)
        shots = [np.empty_like(frames[0]) for _ in range(2)]
        for shot, photo in zip(shots, (one, two), strict=True):
            cropped(photo.picture, _somewhere(photo, generator), shot)
        if fade:
            share = progress(shares, 0, count - 1, generator)
        else:
            cut = min(max(1, int(between(count * 0.25, count * 0.75 + 1, generator))), count - 1)
            share = np.asarray(np.arange(count) >= cut, dtype=np.float64)
        for t, part in enumerate(share):
            cv2.addWeighted(shots[0], 1 - float(part), shots[1], float(part), 0, dst=frames[t])
        said, foil = [], None
        for number in wordings(len(templates), generator):
            texts = _words(one, generator, 11), _words(two, generator, 11)
            said.append(templates[number].format(one=texts[0], two=texts[1]))
            foil = foil or templates[number].format(one=texts[1], two=texts[0])
        return Told(said, foil)

    return plot


SHOTS: dict[str, ShotPlot] = {
    "hold": _hold,
    "pan": _pan,
    "zoom": _zoom,
    "shake": _shake,
    "cut": _follow(fade=False),
    "fade": _follow(fade=True),
}
