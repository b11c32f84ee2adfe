"""The encode side of the loop: encode -> compress -> fuse. Takes the blocks of one part, gives what is to be committed.

Shapes: T frames, P patches a frame, V vectors, D width of the joint space, d width of a patch token, m merged tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from csat_fusion.compressors.budget import Cosine, parse_budget
from csat_fusion.compressors.table import COMPRESSORS, NO_FIDELITY
from csat_fusion.errors import CompressionError
from pipeline.errors import EncodingFailed, OptionError
from pipeline.fuse import VectorOptions, fuse_vectors
from pipeline.media import Block, ClosedSegment, PartResult, SegmentRecord, TokenRecord, WatchSummary
from pipeline.thumbnails import thumbnail_jpeg

if TYPE_CHECKING:
    from csat_fusion.compressors.base import Compressor
    from encoders.base import Encoder

__all__ = ["Digest", "DigestOptions", "TokenOptions"]


@dataclass(frozen=True)
class TokenOptions:
    """Compression of patch tokens into a token set for each segment.

    ``keep`` stores the sets in the library (about 1.5 kB a token); ``compressor`` is a name of ``csat_fusion``, see
    docs/csat.md; ``budget`` is what a segment may keep: a number of tokens (``128``), a share of those seen (``1/16``)
    or a fidelity (``cosine 0.95``); ``null`` is no limit, which only ``identity`` takes. ``gap_seconds`` is how far
    apart in time merged ones may lie.
    """

    keep: bool = False
    compressor: str = "ward"
    budget: int | str | None = 128
    gap_seconds: float = 1.0

    def __post_init__(self) -> None:
        try:
            COMPRESSORS.find(self.compressor)
        except CompressionError as error:
            raise OptionError(f"tokens.compressor: {error}") from error
        if self.compressor == "query":
            raise OptionError("tokens.compressor is 'query', which keeps what a question asks for; ingest knows none")
        try:
            budget = parse_budget(self.budget)
        except CompressionError as error:
            raise OptionError(f"tokens.budget: {error}") from error
        if isinstance(budget, Cosine) and self.compressor in NO_FIDELITY:
            raise OptionError(f"tokens.budget: {self.compressor} cannot keep to a fidelity ({self.budget})")
        if budget is None and self.compressor != "identity":
            raise OptionError(f"tokens.budget is null, no limit; only identity takes that, not {self.compressor}")
        if not self.gap_seconds > 0:
            raise OptionError(f"tokens.gap_seconds is {self.gap_seconds}; allowed: more than 0")


@dataclass(frozen=True)
class DigestOptions:
    """How frame tokens become what is kept. ``thumbnail_pixels`` is a thumbnail's longer side; 0 keeps none."""

    tokens: TokenOptions = field(default_factory=TokenOptions)
    vectors: VectorOptions = field(default_factory=VectorOptions)
    thumbnail_pixels: int = 256

    def __post_init__(self) -> None:
        if not 0 <= self.thumbnail_pixels <= 2048:
            raise OptionError(f"thumbnail_pixels is {self.thumbnail_pixels}; allowed: 0 (none) to 2048")


class _OpenSegment:
    """What has been encoded of a segment so far."""

    def __init__(self, compressor: Compressor | None) -> None:
        self.compressor = compressor
        self.embedding: list[npt.NDArray[np.float32]] = []
        self.start_seconds: list[float] = []
        self.end_seconds: list[float] = []
        self.weight: list[int] = []
        self.cover: npt.NDArray[np.uint8] | None = None  # the picture that stands for the longest span
        self.cover_pts_seconds = 0.0
        self.cover_duration_seconds = 0.0


class Digest:
    """Encodes blocks of one part in batches; ``finish`` gives the part's result.

    Batches are filled across blocks and segments, so that their make-up depends on the part alone: a part that is done
    again on the same number of cores gives the same numbers; on another, the last bits may differ.
    """

    def __init__(self, encoder: Encoder, options: DigestOptions) -> None:
        self._encoder = encoder
        self._options = options
        self._batch: list[tuple[npt.NDArray[np.uint8], float, float, float, int, int]] = []
        self._open: dict[int, _OpenSegment] = {}
        self._closed: list[ClosedSegment] = []
        self._done: list[SegmentRecord] = []

    def add(self, block: Block) -> None:
        """Take the next block, in order."""
        for i in range(len(block)):
            if self._batch and self._batch[0][0].shape != block.images[i].shape:
                self._encode()
            self._batch.append(
                (
                    block.images[i],
                    float(block.pts_seconds[i]),
                    float(block.start_seconds[i]),
                    float(block.end_seconds[i]),
                    int(block.weight[i]),
                    int(block.segment[i]),
                )
            )
            if len(self._batch) >= self._encoder.info.frames_at_once:
                self._encode()
        # Only now: a segment may be closed in the block of its last frame, which has just been taken.
        self._closed.extend(block.closed)

    def finish(self, summary: WatchSummary) -> PartResult:
        """Encode what is left; everything that the part's transaction commits."""
        self._encode()
        info = self._encoder.info
        facts = {"model": info.name, "precision": info.precision, "device": info.device}
        return PartResult(segments=tuple(self._done), summary=summary, facts=facts)

    def _encode(self) -> None:
        if self._batch:
            images = np.stack([item[0] for item in self._batch])
            seen = self._encoder.encode(images, tokens=self._options.tokens.keep)
            embedding = np.asarray(seen.embedding, dtype=np.float32)
            broken = np.flatnonzero(~np.isfinite(embedding).all(axis=1))
            if len(broken):
                raise EncodingFailed(
                    f"{self._encoder.info.name} gave no finite embedding for the frame at "
                    f"{self._batch[int(broken[0])][1]:.3f} s ({self._encoder.info.precision}); try "
                    "--set encoder.precision=fp32"
                )
            for i, (image, pts, start, end, weight, number) in enumerate(self._batch):
                segment = self._open.get(number)
                if segment is None:
                    segment = self._open[number] = _OpenSegment(self._compressor())
                segment.embedding.append(embedding[i])
                segment.start_seconds.append(start)
                segment.end_seconds.append(end)
                segment.weight.append(weight)
                if segment.cover is None or end - start > segment.cover_duration_seconds:
                    segment.cover, segment.cover_pts_seconds, segment.cover_duration_seconds = image, pts, end - start
                if segment.compressor is not None:
                    assert seen.tokens is not None
                    segment.compressor.update(seen.tokens[i], start, end, weight=float(weight))
            self._batch.clear()
        for closed in self._closed:
            self._done.append(self._record(closed, self._open.pop(closed.index)))
        self._closed.clear()

    def _compressor(self) -> Compressor | None:
        options = self._options.tokens
        if not options.keep:
            return None
        from csat_fusion import make_compressor

        return make_compressor(options.compressor, options.budget, gap_seconds=options.gap_seconds)

    def _record(self, closed: ClosedSegment, segment: _OpenSegment) -> SegmentRecord:
        vectors = fuse_vectors(
            np.stack(segment.embedding),
            np.array(segment.weight, np.float32),
            np.array(segment.start_seconds, np.float64),
            np.array(segment.end_seconds, np.float64),
            self._options.vectors,
        )
        tokens = None
        if segment.compressor is not None:
            result = segment.compressor.result()
            count, width = result.tokens.shape
            tokens = TokenRecord(self._options.tokens.compressor, count, width, result.to_bytes())
        thumbnail = None
        if self._options.thumbnail_pixels and segment.cover is not None:
            thumbnail = thumbnail_jpeg(segment.cover, max_side=self._options.thumbnail_pixels)
        return SegmentRecord(
            index=closed.index,
            span=closed.span,
            boundary=closed.boundary,
            vectors=vectors,
            thumbnail_jpeg=thumbnail,
            thumbnail_seconds=segment.cover_pts_seconds if thumbnail else None,
            tokens=tokens,
        )
