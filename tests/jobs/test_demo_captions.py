"""The demo captions a few segments of each video, however many there are, and the same ones each time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from csat_fusion.tokens import TokenSet
from encoders.captioning import Caption, Captioner
from jobs.demo.captions import caption
from jobs.demo.play import DemoFolder, DemoResult
from jobs.reporting import JobSummary
from pipeline.captioning import caption_segments
from pipeline.catalog.records import CaptionRecord
from pipeline.errors import LibraryError
from pipeline.library import Library
from pipeline.media import Span

_TOKENS = TokenSet(
    torch.ones(1, 4), torch.ones(1), torch.zeros(1).double(), torch.ones(1).double(), torch.zeros(1).long()
)


class _Catalog:
    """A video of so many segments of one second, with a token set each."""

    def __init__(self, segments: int) -> None:
        self.rows = [SimpleNamespace(id=i, span=Span(i, i + 1)) for i in range(segments)]
        self.kept: dict[int, CaptionRecord] = {}

    def video(self, name: str) -> Any:
        if name == "gone":
            raise LibraryError("gone.mp4 has changed")
        return SimpleNamespace(id=name, uri=f"/f/{name}")

    def segments_of(self, video: str) -> list[Any]:
        return self.rows

    def captioned_segments(self, video: str, model: str) -> set[int]:
        return set(self.kept)

    def wordless_segments(self, video: str, model: str) -> set[int]:
        return set()

    def segments_with_tokens(self, ids: Iterator[int]) -> set[int]:
        return set(ids)

    def token_set(self, segment: int) -> Any:
        return SimpleNamespace(payload=_TOKENS.to_bytes())

    def keep_captions(self, video: str, model: str, new: dict[int, CaptionRecord], without: frozenset[int]) -> None:
        self.kept |= new

    def captions_of(self, video: str) -> list[CaptionRecord]:
        return [self.kept[key] for key in sorted(self.kept)]


class _Captioner:
    info = SimpleNamespace(name="says", reads="print", key_frames=0)

    def caption(
        self, sets: Sequence[TokenSet], *, spans: Sequence[tuple[float, float]], key_frames: object
    ) -> list[Caption]:
        return [Caption(f"second {start:g}", start, end, "says", 0.5) for start, end in spans]


def _library(segments: int) -> Library:
    catalog = _Catalog(segments)

    @contextmanager
    def writing(command: str) -> Iterator[_Catalog]:
        yield catalog

    return cast(
        Library, SimpleNamespace(catalog=catalog, writing=writing, manifest=SimpleNamespace(fingerprint="print"))
    )


@pytest.mark.parametrize(("segments", "limit", "starts"), [(10, 2, [2, 7]), (2, 2, [0, 1]), (0, 2, []), (9, 1, [4])])
def test_a_limit_spreads_over_the_video_and_stays(segments: int, limit: int, starts: list[int]) -> None:
    library, says = _library(segments), cast(Captioner, _Captioner())
    for made in (len(starts), 0):
        done = caption_segments(library, "v", says, limit=limit)
        assert [one.span.start_seconds for one in done.captions] == starts
        assert done.from_kept == made


def test_few_of_many_videos_and_a_lost_one_is_told(tmp_path: Path) -> None:
    result = DemoResult(DemoFolder(tmp_path), "says", False, JobSummary("job"))
    own: Any = [SimpleNamespace(id=f"v{i}", name=f"v{i}.mp4", uri=f"/f/v{i}.mp4") for i in range(20)]
    film: Any = SimpleNamespace(id="gone", name="gone.mp4", uri="/f/gone.mp4")
    caption(result, _library(1), cast(Captioner, _Captioner()), [film], own)
    assert [one.name for one in result.captions] == [f"v{i}.mp4" for i in (0, 4, 8, 12, 16)]
    assert (result.captions[0].text, result.captions[0].confidence) == ("second 0", 0.5)
    assert result.surprises == ["captions of gone.mp4: LibraryError: gone.mp4 has changed"]
    assert result.to_dict()["captioner"] == "says"
