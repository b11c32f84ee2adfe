"""A contact sheet of clips: the frames of each in a row, its sentences and its foil below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from scripts.training.clips import Clips

__all__ = ["clip_sheet", "write_sheet"]

_LINE = 15  # pixels of a line of text
_INK, _FOIL, _GREY = (20, 20, 20), (170, 30, 30), (120, 120, 120)


def clip_sheet(clips: Clips, columns: int = 2, gap: int = 8) -> np.ndarray:
    """A picture ``[H, W, 3]`` (uint8 RGB) of all clips, so many beside each other."""
    count, frames, size = clips.frames.shape[:3]
    lines = max(len(said) for said in clips.sentences) + 1
    wide, high = frames * (size + 1) + gap, size + lines * _LINE + gap
    rows = -(-count // columns)
    sheet = np.full((rows * high, columns * wide, 3), 255, np.uint8)
    for number in range(count):
        top, left = number // columns * high, number % columns * wide
        for t in range(frames):
            x = left + t * (size + 1)
            sheet[top : top + size, x : x + size] = clips.frames[number, t]
        title = f"{clips.kinds[number]}, {clips.end_seconds[number, -1]:.1f} s"
        texts = [(f"[{title}]  {clips.sentences[number][0]}", _INK)]
        texts += [(text, _GREY) for text in clips.sentences[number][1:]]
        if clips.foils[number] is not None:
            texts.append((f"not: {clips.foils[number]}", _FOIL))
        for line, (text, colour) in enumerate(texts):
            at = (left, top + size + _LINE * (line + 1) - 3)
            cv2.putText(sheet, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
    return sheet


def write_sheet(path: Path, clips: Clips) -> None:
    """Write the contact sheet.

    Raises:
        OptionError: a name that is no picture's.
        OSError: the file cannot be written.
    """
    from pipeline.errors import OptionError

    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise OptionError(f"--out {str(path)!r}: a name that ends with .png or .jpg is allowed")
    written, data = cv2.imencode(path.suffix, np.ascontiguousarray(clip_sheet(clips)[:, :, ::-1]))
    assert written, path
    path.write_bytes(data.tobytes())
