"""What the tests of captioners behind an address share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.encoders.vlm_server import VlmServer, serving, without_keys


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[VlmServer]:
    """A model behind an address of this machine."""
    without_keys(monkeypatch)
    with serving() as one:
        yield one
