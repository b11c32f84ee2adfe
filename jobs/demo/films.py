"""The demo's films: which scenes follow each other, what happens in them and when, and how each is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.media import Span

if TYPE_CHECKING:
    from jobs.demo.scenes import Scene

__all__ = ["BROKEN", "DRAWING", "FILMS", "BrokenFile", "Event", "Film", "Shot", "asked_picture"]

DRAWING = 2  # raised when the films change, so that those of an older version are not taken for them

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Event:
    """Something that happens in a shot, ``[start_seconds, end_seconds)`` from the shot's start.

    ``words`` are what a person might type who looks for it. They were written before any model was asked, and a model
    that does not understand them is no reason to change them.
    """

    title: str
    start_seconds: float
    end_seconds: float
    words: str


@dataclass(frozen=True)
class Shot:
    """One scene for ``seconds``. ``still`` shots move in jumps: with a variable frame rate they need few frames."""

    scene: Callable[[], Scene]
    seconds: int
    events: tuple[Event, ...]
    still: bool = False


@dataclass(frozen=True)
class Film:
    """A film of one or more shots. ``codec`` is used where it can be encoded here, else ``fallback``."""

    name: str
    codec: str
    rate: int
    shots: tuple[Shot, ...]
    fallback: str = ""
    variable_rate: bool = False
    note: str = ""
    _scenes: dict[int, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def duration_seconds(self) -> float:
        return float(sum(shot.seconds for shot in self.shots))

    @cached_property
    def events(self) -> tuple[tuple[str, Span], ...]:
        """Title and span, in the film's own time."""
        found, start = [], 0.0
        for shot in self.shots:
            found += [(e.title, Span(start + e.start_seconds, start + e.end_seconds)) for e in shot.events]
            start += shot.seconds
        return tuple(found)

    @cached_property
    def worded(self) -> tuple[tuple[str, Span], ...]:
        """The words for each event, and its span in the film's own time."""
        words = [event.words for shot in self.shots for event in shot.events]
        return tuple((asked, span) for asked, (_, span) in zip(words, self.events, strict=True))

    def starts_seconds(self) -> list[Fraction]:
        """When each frame begins. With a variable rate, still shots have every fifth frame only."""
        starts, first = [], 0
        for shot in self.shots:
            step = 5 if self.variable_rate and shot.still else 1
            starts += [first + Fraction(k, self.rate) for k in range(0, shot.seconds * self.rate, step)]
            first += shot.seconds
        return starts

    def picture(self, seconds: float) -> Picture:
        """The picture ``[360, 640, 3]`` (uint8 RGB) at a time, as drawn, before any encoding.

        Raises:
            ValueError: a time outside the film.
        """
        start = 0.0
        for number, shot in enumerate(self.shots):
            if start <= seconds < start + shot.seconds:
                if number not in self._scenes:
                    self._scenes[number] = shot.scene()
                drawn: Picture = self._scenes[number].draw(seconds - start)
                return drawn
            start += shot.seconds
        raise ValueError(f"{self.name}@{seconds}: the film goes from 0 to {start} s")

    def pictures(self, ticked: Callable[[], None] = lambda: None) -> Iterator[Picture]:
        """All pictures, at :meth:`starts_seconds`; ``ticked`` is called after each."""
        for start in self.starts_seconds():
            yield self.picture(float(start))
            ticked()

    def written_codec(self) -> str:
        """The codec that :meth:`write` uses on this installation."""
        from pipeline.sources.writing import can_encode

        return self.codec if not self.fallback or can_encode(self.codec) else self.fallback

    def write(self, folder: Path, ticked: Callable[[], None] = lambda: None) -> Path:
        """Draw and encode the film into a folder; see :func:`pipeline.sources.write_video` for the errors."""
        from pipeline.sources import write_video

        starts = self.starts_seconds() if self.variable_rate else None
        path = folder / self.name
        return write_video(
            path, self.pictures(ticked), rate=self.rate, starts_seconds=starts, codec=self.written_codec()
        )


@dataclass(frozen=True)
class BrokenFile:
    """A file that cannot be indexed, and the error that it must give."""

    name: str
    error: str
    what: str
    content: Callable[[Path], bytes]  # from the folder of the drawn films

    def write(self, folder: Path, films: Sequence[Film]) -> Path:
        """Make it, from the first of the films where it needs one."""
        path = folder / self.name
        path.write_bytes(self.content(folder / films[0].name))
        return path


def asked_picture(picture: Picture) -> Picture:
    """A picture as somebody else might have taken it: a tenth of each side cut off, and 15% brighter."""
    height, width = picture.shape[:2]
    top, left = height // 20, width // 20
    cut = picture[top : height - top, left : width - left]
    return np.asarray(np.clip(cut.astype(np.float32) * 1.15, 0, 255).round(), dtype=np.uint8)


def _scene(name: str, *arguments: Any, **named: Any) -> Callable[[], Scene]:
    """A scene that is made when it is first drawn; its module brings OpenCV."""

    def make() -> Scene:
        import importlib

        module, _, kind = name.partition(":")
        made: Scene = getattr(importlib.import_module(f"jobs.demo.{module}"), kind)(*arguments, **named)
        return made

    return make


FILMS: tuple[Film, ...] = (
    Film(
        "by-the-sea.mp4",
        "libx264",
        25,
        (
            Shot(
                _scene("scenes:Sea", 1.0, 7.0),
                8,
                (Event("a sailing boat passes", 1.5, 6.5, "a sailing boat on the sea"),),
            ),
            Shot(
                _scene("scenes:Lighthouse", 3.5),
                7,
                (Event("the lighthouse is lit", 3.5, 7.0, "a lighthouse shining its light"),),
            ),
        ),
    ),
    Film(
        "high-street.mkv",
        "libx265",
        24,
        (
            Shot(
                _scene("street:Street", bus=(2.5, 6.0)),
                8,
                (Event("a red bus passes", 2.8, 5.7, "a red bus on a street"),),
            ),
            Shot(
                _scene("street:Street", night=True),
                6,
                (Event("headlights in the rain", 0.0, 6.0, "cars driving in the rain at night"),),
            ),
        ),
    ),
    Film(
        "lake-at-night.webm",
        "libvpx-vp9",
        25,
        (
            Shot(
                _scene("scenes:NightSky", 6.0, 12.0),
                12,
                (
                    Event("the moon rises", 0.0, 6.0, "the moon in the night sky"),
                    Event("fireworks", 6.0, 12.0, "fireworks in the sky"),
                ),
            ),
        ),
    ),
    Film(
        "playroom.avi",
        "mpeg4",
        25,
        (
            Shot(
                _scene("rooms:Playroom", (7.0, 12.0)),
                12,
                (
                    Event("balls bounce", 0.0, 7.0, "colourful balls bouncing on the floor"),
                    Event("the light is out", 7.0, 12.0, "a dark room"),
                ),
            ),
        ),
    ),
    Film(
        "aquarium.mp4",
        "libsvtav1",
        24,
        (
            Shot(
                _scene("rooms:Aquarium", (5.0, 9.5)),
                12,
                (
                    Event("small fish swim", 0.0, 5.0, "small fish under water"),
                    Event("a shark passes", 5.5, 9.0, "a shark swimming"),
                ),
            ),
        ),
        fallback="libx264",
    ),
    Film(
        "clock-and-field.mkv",
        "libx264",
        25,
        (
            Shot(_scene("rooms:Clock", 3.0), 5, (Event("a clock", 0.0, 5.0, "a clock on a wall"),), still=True),
            Shot(
                _scene("scenes:Field", 5.0),
                10,
                (
                    Event("a windmill in the sun", 0.0, 5.0, "a windmill in a field"),
                    Event("a storm over the field", 5.0, 10.0, "a thunderstorm with dark clouds"),
                ),
            ),
        ),
        variable_rate=True,
        note="variable frame rate",
    ),
)


def _first_part(film: Path) -> bytes:
    whole = film.read_bytes()
    return whole[: len(whole) * 6 // 10]  # MP4 keeps its table of contents at the end, which is what a torn copy loses


def _a_list(film: Path) -> bytes:
    return b"milk\nbread\napples\na new tape for the camera\n"


BROKEN: tuple[BrokenFile, ...] = (
    BrokenFile("torn-copy.mp4", "MediaUnreadable", "a copy that broke off", _first_part),
    BrokenFile("shopping-list.mp4", "NotAVideo", "a text file with the wrong ending", _a_list),
)
