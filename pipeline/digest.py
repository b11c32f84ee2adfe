"""The encode side of the loop: encode -> compress -> fuse. Takes the blocks of one part, gives what is to be committed.

Shapes: T frames, P patches a frame, V vectors, D width of the joint space, d width of a patch token, m merged tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from csat_fusion.compressors.budget import Cosine, parse_budget
from csat_fusion.compressors.table import COMPRESSORS, NO_FIDELITY
from csat_fusion.errors import CompressionError
from pipeline.errors import EncodingFailed, OptionError
from pipeline.fuse import VectorOptions, fuse_vectors
from pipeline.media import Block, ClosedSegment, PartResult, SegmentRecord, Span, TokenRecord, WatchSummary
from pipeline.thumbnails import thumbnail_jpeg

if TYPE_CHECKING:
    from torch import Tensor

    from csat_fusion.compressors.base import Compressor
    from csat_fusion.tokens import TokenSet
    from encoders.base import Encoder, EncoderInfo

__all__ = ["Digest", "DigestOptions", "SegmentDigest", "TokenOptions", "checked_embedding"]


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


class SegmentDigest:
    """What has been encoded of a segment so far: looks in time order, each with the span that it stands for."""

    def __init__(self, options: DigestOptions) -> None:
        self._options = options
        self._compressor: Compressor | None = None
        if options.tokens.keep:
            from csat_fusion import make_compressor

            tokens = options.tokens
            self._compressor = make_compressor(tokens.compressor, tokens.budget, gap_seconds=tokens.gap_seconds)
        self._embedding: list[npt.NDArray[np.float32]] = []
        self._start_seconds: list[float] = []
        self._end_seconds: list[float] = []
        self._weight: list[int] = []
        self._cover: npt.NDArray[np.uint8] | None = None  # the picture that stands for the longest span
        self._cover_pts_seconds = 0.0
        self._cover_duration_seconds = 0.0

    def __len__(self) -> int:
        return len(self._embedding)

    def add(
        self,
        image: npt.NDArray[np.uint8],
        embedding: npt.NDArray[np.float32],
        tokens: Tensor | None,
        pts_seconds: float,
        span: Span,
        weight: int,
    ) -> None:
        """Take a look: its picture ``[H, W, 3]``, ``embedding [D]`` and ``tokens [P, d]`` (where they are kept), the
        span that it stands for, and how many sampled frames."""
        self._embedding.append(embedding)
        self._start_seconds.append(span.start_seconds)
        self._end_seconds.append(span.end_seconds)
        self._weight.append(weight)
        if self._cover is None or span.duration_seconds > self._cover_duration_seconds:
            self._cover, self._cover_pts_seconds = image, pts_seconds
            self._cover_duration_seconds = span.duration_seconds
        if self._compressor is not None:
            assert tokens is not None
            self._compressor.update(tokens, span.start_seconds, span.end_seconds, weight=float(weight))

    def token_set(self) -> TokenSet | None:
        """The compressed tokens so far; ``None`` where none are kept."""
        return None if self._compressor is None else self._compressor.result()

    def record(self, index: int, span: Span, boundary: str, tokens: TokenSet | None = None) -> SegmentRecord:
        """All that is kept of the segment; ``tokens`` are stored with it."""
        thumbnail = None
        if self._options.thumbnail_pixels and self._cover is not None:
            thumbnail = thumbnail_jpeg(self._cover, max_side=self._options.thumbnail_pixels)
        kept = None
        if tokens is not None:
            count, width = tokens.tokens.shape
            kept = TokenRecord(self._options.tokens.compressor, count, width, tokens.to_bytes())
        vectors = fuse_vectors(
            np.stack(self._embedding),
            np.array(self._weight, np.float32),
            np.array(self._start_seconds, np.float64),
            np.array(self._end_seconds, np.float64),
            self._options.vectors,
        )
        return SegmentRecord(
            index=index,
            span=span,
            boundary=boundary,
            vectors=vectors,
            thumbnail_jpeg=thumbnail,
            thumbnail_seconds=self._cover_pts_seconds if thumbnail else None,
            tokens=kept,
        )


def checked_embedding(embedding: Any, info: EncoderInfo, seconds: Sequence[float]) -> npt.NDArray[np.float32]:
    """Embeddings ``[T, D]`` of frames at these times, as float32.

    Raises:
        EncodingFailed: one is not finite.
    """
    values = np.asarray(embedding, dtype=np.float32)
    broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(broken):
        raise EncodingFailed(
            f"{info.name} gave no finite embedding for the frame at {seconds[int(broken[0])]:.3f} s "
            f"({info.precision}); try --set encoder.precision=fp32"
        )
    return values


class Digest:
    """Encodes blocks of one part in batches; ``finish`` gives the part's result.

    Batches are filled across blocks and segments, so that their make-up depends on the part alone: a part that is done
    again on the same number of cores gives the same numbers; on another, the last bits may differ.
    """

    def __init__(self, encoder: Encoder, options: DigestOptions) -> None:
        self._encoder = encoder
        self._options = options
        self._batch: list[tuple[npt.NDArray[np.uint8], float, float, float, int, int]] = []
        self._open: dict[int, SegmentDigest] = {}
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
            embedding = checked_embedding(seen.embedding, self._encoder.info, [item[1] for item in self._batch])
            for i, (image, pts, start, end, weight, number) in enumerate(self._batch):
                if number not in self._open:
                    self._open[number] = SegmentDigest(self._options)
                tokens = None if seen.tokens is None else seen.tokens[i]
                self._open[number].add(image, embedding[i], tokens, pts, Span(start, end), weight)
            self._batch.clear()
        for closed in self._closed:
            segment = self._open.pop(closed.index)
            self._done.append(segment.record(closed.index, closed.span, closed.boundary, segment.token_set()))
        self._closed.clear()
