"""The contact sheet: a row for each question, what was asked with and the moments found, the right ones green."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from jobs.reporting import precise_clock, shorten

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

    from jobs.demo.answers import Answer

__all__ = ["Tile", "contact_sheet"]

Picture = npt.NDArray[np.uint8]
Tile = tuple[str, float]  # a moment's video and peak

_W, _H = 256, 144  # a thumbnail
_GAP, _MARGIN, _CAPTION, _HEAD = 18, 28, 58, 96
_GROUND, _PANEL, _INK, _DIM = (22, 24, 30), (34, 37, 46), (236, 238, 242), (150, 156, 170)
_GREEN, _RED, _GREY, _BLUE = (64, 190, 110), (228, 78, 70), (86, 92, 106), (90, 160, 240)


def contact_sheet(
    path: Path,
    answers: Sequence[Answer],
    pictures: Mapping[Tile, Picture],
    durations: Mapping[str, float],
    heading: str,
    detail: str,
) -> Path:
    """Write the sheet as a PNG.

    Args:
        pictures: of each moment, by video and peak time.
        durations: length of each video in seconds, by URI, for the bar under a thumbnail; without one there is no bar.
        heading: the large line at the top; ``detail`` the small one below it.

    Returns:
        The path.
    """
    from PIL import Image, ImageDraw

    columns = 1 + max((len(answer.moments) for answer in answers), default=0)
    width = 2 * _MARGIN + columns * _W + (columns - 1) * _GAP + _GAP
    row = _H + _CAPTION + _GAP
    sheet = Image.new("RGB", (max(width, 640), _HEAD + len(answers) * row + _MARGIN), _GROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 22), heading, _INK, font=_font(26))
    draw.text((_MARGIN, 60), detail, _DIM, font=_font(15))
    for number, answer in enumerate(answers):
        top = _HEAD + number * row
        if answer.picture is None:
            _words(draw, (_MARGIN, top), answer.title)
        else:
            _tile(sheet, draw, (_MARGIN, top), answer.picture, _BLUE)
        _bar(draw, (_MARGIN, top), durations.get(answer.uri), answer.span.start_seconds, answer.span.end_seconds, _BLUE)
        span = f"{precise_clock(answer.span.start_seconds)} to {precise_clock(answer.span.end_seconds)}"
        _caption(draw, (_MARGIN, top), shorten(answer.title, 34), f"{shorten(answer.name, 22)}, {span}")
        for place, moment in enumerate(answer.moments):
            left = _MARGIN + (place + 1) * (_W + _GAP) + _GAP
            right = answer.covers(moment)
            colour = _GREEN if right else _RED if place == 0 else _GREY
            _tile(sheet, draw, (left, top), pictures[moment.video, moment.peak_seconds], colour)
            duration = durations.get(moment.uri)
            _bar(draw, (left, top), duration, moment.start_seconds, moment.end_seconds, colour)
            if right:
                _truth(draw, (left, top), duration, answer)
            span = f"{precise_clock(moment.start_seconds)} to {precise_clock(moment.end_seconds)}"
            _caption(draw, (left, top), shorten(moment.name, 26), f"{span}   score {moment.score:.3f}")
        if not answer.moments:
            draw.text((_MARGIN + _W + 2 * _GAP, top + _H // 2), "nothing found", _RED, font=_font(16))
    sheet.save(path)
    return path


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _tile(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, at: tuple[int, int], picture: Picture, colour: tuple[int, int, int]
) -> None:
    from PIL import Image, ImageOps

    x, y = at
    draw.rounded_rectangle((x - 5, y - 5, x + _W + 4, y + _H + 4), 6, fill=colour)
    draw.rectangle((x - 1, y - 1, x + _W, y + _H), fill=_PANEL)
    small = ImageOps.contain(Image.fromarray(picture), (_W, _H), Image.Resampling.LANCZOS)
    sheet.paste(small, (x + (_W - small.width) // 2, y + (_H - small.height) // 2))


def _words(draw: ImageDraw.ImageDraw, at: tuple[int, int], words: str) -> None:
    """A tile with the words asked, as many lines of them as there is room for."""
    x, y = at
    draw.rounded_rectangle((x - 5, y - 5, x + _W + 4, y + _H + 4), 6, fill=_BLUE)
    draw.rectangle((x - 1, y - 1, x + _W, y + _H), fill=_PANEL)
    lines = textwrap.wrap(words, 22)[:5]
    for number, line in enumerate(lines):
        draw.text((x + 16, y + _H / 2 + (number - len(lines) / 2) * 26), line, _INK, font=_font(20))


def _bar(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    duration: float | None,
    start: float,
    end: float,
    colour: tuple[int, int, int],
) -> None:
    """A line as long as the film, with the span in colour."""
    if not duration:
        return
    x, y = at[0], at[1] + _H + 9
    draw.rounded_rectangle((x, y, x + _W - 1, y + 5), 2, fill=_PANEL)
    left = x + min(1.0, start / duration) * (_W - 1)
    right = x + min(1.0, end / duration) * (_W - 1)
    draw.rounded_rectangle((left, y, max(right, left + 3), y + 5), 2, fill=colour)


def _truth(draw: ImageDraw.ImageDraw, at: tuple[int, int], duration: float | None, answer: Answer) -> None:
    """The true span as a thin line over the bar, and the time of the picture asked with."""
    if not duration:
        return
    x, y = at[0], at[1] + _H + 9
    left, right = (x + min(1.0, s / duration) * (_W - 1) for s in (answer.span.start_seconds, answer.span.end_seconds))
    draw.line((left, y + 8, right, y + 8), fill=_BLUE, width=2)
    if answer.asked_seconds is None:
        return
    middle = x + min(1.0, answer.asked_seconds / duration) * (_W - 1)
    draw.line((middle, y, middle, y + 5), fill=_INK, width=2)


def _caption(draw: ImageDraw.ImageDraw, at: tuple[int, int], first: str, second: str) -> None:
    draw.text((at[0], at[1] + _H + 20), first, _INK, font=_font(15))
    draw.text((at[0], at[1] + _H + 39), second, _DIM, font=_font(13))
