"""Thumbnails: size, aspect, content, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import OptionError
from pipeline.thumbnails import decode_jpeg, thumbnail_jpeg


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(224, 398, (144, 256)), (398, 224, (256, 144)), (50, 20, (50, 20)), (1, 2000, (1, 256))],
)
def test_size(height: int, width: int, expected: tuple[int, int]) -> None:
    assert decode_jpeg(thumbnail_jpeg(np.zeros((height, width, 3), dtype=np.uint8))).shape == (*expected, 3)


def test_content() -> None:
    image = np.zeros((300, 300, 3), dtype=np.uint8)
    image[:, :150] = (250, 20, 20)
    small = decode_jpeg(thumbnail_jpeg(image[:, ::-1], max_side=100)).astype(int)  # a view with negative strides
    assert abs(small[50, 80] - (250, 20, 20)).max() < 12
    assert small[50, 20].max() < 12


def test_refusals() -> None:
    good = np.zeros((4, 4, 3), dtype=np.uint8)
    for bad in (good[..., 0], good.astype(np.float32), good[:0]):
        with pytest.raises(OptionError, match="uint8"):
            thumbnail_jpeg(bad)
    with pytest.raises(OptionError, match="max_side 0"):
        thumbnail_jpeg(good, max_side=0)
    with pytest.raises(OptionError, match="quality 100"):
        thumbnail_jpeg(good, quality=100)
