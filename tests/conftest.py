"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of shared real videos; skips the test, with the reason, where there is none."""
    named = os.environ.get("LONGREEL_MEDIA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "media"
    if not (folder / "clips").is_dir():
        pytest.skip(f"no shared media: {folder} has no folder 'clips' (set LONGREEL_MEDIA)")
    return folder
