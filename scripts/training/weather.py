"""Clips of a place whose light or weather changes: a lamp, dusk, rain, snow, sun and moon, a lighthouse.

Shapes: frames ``[T, S, S, 3]`` uint8, shares ``[T]``, as in plots.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scripts.training.brush import RGB, Picture, between, fill, mix, pick, stroke
from scripts.training.parts import SUN, poly
from scripts.training.plots import Shares, Told, progress, wordings
from scripts.training.scenes import enter_scene, scene
from scripts.training.shapes import disc

__all__ = ["weather"]


@dataclass(frozen=True)
class _Change:
    """A change of a whole place: what it looks like when it is over, the sentences forwards and backwards."""

    forwards: tuple[str, ...]
    backwards: tuple[str, ...]
    places: tuple[str, ...]
    sudden: bool = False


_CHANGES: dict[str, _Change] = {
    "light": _Change(
        (
            "the light goes out in {p}",
            "it suddenly gets dark in {p}",
            "the lamp goes out in {p}",
            "{p} gets dark",
        ),
        (
            "the light goes on in {p}",
            "it suddenly gets bright in {p}",
            "the lamp goes on in {p}",
            "{p} gets bright",
        ),
        ("room",),
        sudden=True,
    ),
    "dusk": _Change(
        ("it gets dark over {p}", "night falls over {p}", "the day ends over {p}", "{p} gets darker and darker"),
        ("it gets light over {p}", "day breaks over {p}", "the day begins over {p}", "{p} gets brighter and brighter"),
        ("sea", "beach", "street", "field", "snow", "mountains", "desert"),
    ),
    "rain": _Change(
        (
            "it starts to rain over {p}",
            "rain begins to fall on {p}",
            "it begins to rain on {p}",
            "the rain begins",
        ),
        ("it stops raining over {p}", "rain stops falling on {p}", "it no longer rains on {p}", "the rain ends"),
        ("sea", "beach", "street", "field", "forest", "mountains"),
        sudden=True,
    ),
    "snow": _Change(
        (
            "it starts to snow over {p}",
            "snow begins to fall on {p}",
            "flakes begin to fall on {p}",
            "the snow begins",
        ),
        ("it stops snowing over {p}", "snow stops falling on {p}", "flakes stop falling on {p}", "the snow ends"),
        ("street", "field", "forest", "mountains", "snow"),
        sudden=True,
    ),
    "sun": _Change(
        (
            "the {s} rises over {p}",
            "the {s} goes up over {p}",
            "the {s} comes up behind {p}",
            "{s}rise over {p}",
        ),
        ("the {s} sets over {p}", "the {s} goes down over {p}", "the {s} sinks behind {p}", "{s}set over {p}"),
        ("sea", "beach"),
    ),
    "beam": _Change(
        (
            "the lighthouse is lit",
            "the light of the lighthouse goes on",
            "the lighthouse begins to shine",
            "the lamp of the lighthouse goes on",
        ),
        (
            "the lighthouse goes dark",
            "the light of the lighthouse goes out",
            "the lighthouse stops shining",
            "the lamp of the lighthouse goes out",
        ),
        ("sea",),
        sudden=True,
    ),
}


def _tinted(picture: Picture, rgb: RGB) -> Picture:
    """The picture multiplied by a colour; white changes nothing."""
    out: Picture = (picture.astype(np.uint16) * np.asarray(rgb, np.uint16) // 255).astype(np.uint8)
    return out


def _fall(image: Picture, spots: np.ndarray, share: float, snow: bool) -> None:
    """Drops or flakes ``[n, 2]`` in the air, further down the later."""
    for x, y in (spots + np.array([0.1 * share, share * (2.0 if snow else 7.0)])) % 1.0:
        if snow:
            fill(image, [disc(0.011, 0.011, float(x), float(y), corners=8)], (250, 250, 252))
        else:
            stroke(image, poly((x, y), (x - 0.015, y + 0.07)), (190, 204, 224), 0.005)


def _shine(image: Picture, x: float, y: float, share: float) -> None:
    """The lamp of a lighthouse at (x, y) with two beams that turn."""
    lit = image.copy()
    reach = 0.9 * float(np.cos(5 * share))
    for way in (reach, -reach):
        fill(lit, [poly((x, y), (x + way, y - 0.12), (x + way, y + 0.12))], (255, 244, 190))
    fill(lit, [disc(0.07, 0.07, x, y)], (255, 250, 220))
    image[:] = (lit.astype(np.uint16) + image) // 2
    fill(image, [disc(0.03, 0.03, x, y, corners=12)], (255, 252, 232))


def weather(frames: Picture, shares: Shares, generator: np.random.Generator) -> Told:
    """The light or the weather of a place changes."""
    name = pick(tuple(_CHANGES), generator)
    change = _CHANGES[name]
    place = scene(np.empty_like(frames[0]), generator, change.places)
    while (name, place.time) in (("dusk", "night"), ("beam", "day")):
        place = scene(np.empty_like(frames[0]), generator, change.places)
    comes = generator.random() < 0.5
    far = progress(shares, 0, len(shares) - 1, generator)
    far = far if comes else 1 - far
    if change.sudden:
        far = np.asarray(far >= 0.5, dtype=np.float64)
    spots = generator.random((26, 2))
    body = "moon" if place.time == "night" else "sun"
    rgb = {"day": SUN, "evening": (255, 236, 190), "night": (240, 232, 200)}[place.time]
    x, wide = between(0.2, 0.8, generator), between(0.07, 0.12, generator)
    high = max(wide + 0.02, place.horizon - between(0.2, 0.3, generator))
    inside = [role for role in place.roles if role.words[0].startswith(("on", "in"))]
    actor = enter_scene(pick(inside, generator), generator) if inside and generator.random() < 0.4 else None
    if name == "beam":
        coast = next(role for role in place.roles if "lighthouse" in role.things)
        actor = enter_scene(coast, generator)
    dark: RGB = pick(((44, 52, 76), (30, 34, 50), (60, 60, 84)), generator)
    for t, share in enumerate(far):
        frames[t] = place.picture
        if name == "sun":
            y = place.horizon + wide + (high - place.horizon - wide) * float(share)
            sky = frames[t].copy()
            fill(sky, [disc(wide, wide, x, y)], rgb)
            rows = round(place.horizon * len(sky))
            frames[t][:rows] = sky[:rows]
        if actor is not None:
            actor.draw(frames[t], x)
        if name in ("light", "dusk"):
            frames[t] = _tinted(frames[t], mix((255, 255, 255), dark, float(share)))
        elif name == "beam" and share and actor is not None:
            _shine(frames[t], x, actor.y - 0.7 * actor.radius, float(shares[t]))
        elif name in ("rain", "snow") and share:
            frames[t] = _tinted(frames[t], (200, 204, 214))
            _fall(frames[t], spots, float(shares[t]), name == "snow")
    numbers, words = wordings(4, generator), {"p": place.the, "s": body}
    true, false = (change.forwards, change.backwards) if comes else (change.backwards, change.forwards)
    return Told([true[i].format(**words) for i in numbers], false[numbers[0]].format(**words))
