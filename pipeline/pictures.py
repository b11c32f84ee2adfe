"""Pictures that a person asks by."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import QueryError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["read_picture"]


def read_picture(path: Path | str) -> Image.Image:
    """The picture in a file, decoded.

    Raises:
        QueryError: no such file, not a picture, or one that cannot be read.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except FileNotFoundError:
        raise QueryError(f"{path}: no such picture") from None
    except UnidentifiedImageError:
        raise QueryError(f"{path}: not a picture in a format that can be read") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise QueryError(f"{path}: the picture cannot be read ({error})") from error
