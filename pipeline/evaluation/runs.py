"""Judges libraries that are made of a tape for the purpose, one after the other, and leaves none behind."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.digest import DigestOptions
from pipeline.evaluation.library import LibraryScores, Progress, evaluate_library
from pipeline.evaluation.moments import TruthMoment
from pipeline.evaluation.readout import TokenReadout, read_out
from pipeline.evaluation.scores import ANSWERS, RECALL_IOU
from pipeline.evaluation.tape import Tape, TapedPart, Transform, replay
from pipeline.index_kinds import IndexOptions
from pipeline.media import PartResult
from pipeline.search import SearchOptions

if TYPE_CHECKING:
    from encoders.base import Encoder

__all__ = ["Judge", "TokenScores"]


@dataclass(frozen=True)
class TokenScores:
    """What token sets still answer (see :mod:`pipeline.evaluation.readout`), and how many tokens there are.

    ``readout_cosine`` is how well the map of the readout gives back the model's embeddings when nothing is compressed.
    """

    compressor: str
    budget: int | str | None
    tokens: int
    tokens_per_hour: float
    readout_cosine: float
    scores: LibraryScores

    def to_dict(self) -> dict[str, Any]:
        return {
            "compressor": self.compressor,
            "budget": self.budget,
            "tokens": self.tokens,
            "tokens_per_hour": round(self.tokens_per_hour, 1),
            "readout_cosine": round(self.readout_cosine, 4),
            **self.scores.to_dict(),
        }


@dataclass
class Judge:
    """Makes libraries in ``folder``, judges each by ``truth`` as :func:`evaluate_library` does, and deletes it."""

    truth: Sequence[TruthMoment]
    folder: Path
    limit: int = ANSWERS
    thresholds: Sequence[float] = RECALL_IOU
    index_options: IndexOptions = field(default_factory=IndexOptions)
    search_options: SearchOptions = field(default_factory=SearchOptions)
    progress: Progress | None = None
    _numbers: itertools.count[int] = field(default_factory=itertools.count, repr=False)

    def vectors(self, tape: Tape, encoder: Encoder, digest: DigestOptions, name: str = "") -> LibraryScores:
        """The library as a submit with ``digest`` makes it. Token sets are left out: no search reads them.

        Raises:
            As :func:`pipeline.evaluation.tape.replay` and :func:`evaluate_library`.
        """
        return self._judged(tape, encoder, replace(digest, tokens=replace(digest.tokens, keep=False)), name, None)

    def tokens(
        self, tape: Tape, encoder: Encoder, digest: DigestOptions, readout: TokenReadout, name: str = ""
    ) -> TokenScores:
        """The library whose vectors are read out of the token sets that ``digest.tokens`` says.

        Raises:
            As :meth:`vectors`.
        """
        digest = replace(digest, tokens=replace(digest.tokens, keep=True))
        count = 0

        def transform(part: TapedPart, result: PartResult) -> PartResult:
            nonlocal count
            count += sum(segment.tokens.count for segment in result.segments if segment.tokens is not None)
            return read_out(part, result, readout, digest.vectors)

        scores = self._judged(tape, encoder, digest, name, transform)
        per_hour = count / scores.hours if scores.hours else 0.0
        return TokenScores(digest.tokens.compressor, digest.tokens.budget, count, per_hour, readout.cosine, scores)

    def _judged(
        self, tape: Tape, encoder: Encoder, digest: DigestOptions, name: str, transform: Transform | None
    ) -> LibraryScores:
        folder = self.folder / f"library-{next(self._numbers)}"
        label = f"{name}: " if name else ""

        def progress(what: str, done: float, total: float | None) -> None:
            if self.progress is not None:
                self.progress(f"{label}{what}", done, total)

        progress("merging and indexing", 0, None)
        try:
            with replay(
                tape,
                encoder,
                folder,
                digest,
                transform=transform,
                index_options=self.index_options,
                search_options=self.search_options,
            ) as library:
                return evaluate_library(
                    library, self.truth, limit=self.limit, thresholds=self.thresholds, progress=progress
                )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
