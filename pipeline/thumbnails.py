"""Small JPEG pictures of segments."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from pipeline.errors import OptionError

__all__ = ["decode_jpeg", "thumbnail_jpeg"]


def thumbnail_jpeg(image: npt.NDArray[np.uint8], *, max_side: int = 256, quality: int = 80) -> bytes:
    """A JPEG of ``image [H, W, 3]`` (uint8 RGB), scaled down so that its longer side is at most ``max_side`` pixels.

    Raises:
        OptionError: another shape or dtype, or a size or quality out of range.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise OptionError(f"a thumbnail is made of uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    if max_side < 1:
        raise OptionError(f"max_side {max_side}: must be at least 1 pixel")
    if not 1 <= quality <= 95:
        raise OptionError(f"quality {quality}: must be from 1 to 95")
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image))
    scale = max_side / max(picture.size)
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        # Reducing by whole steps first is much faster and looks the same at this size.
        picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, optimize=False)
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> npt.NDArray[np.uint8]:
    """The picture ``[H, W, 3]`` (uint8 RGB) of a JPEG."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))
