"""The compression dial: how recall falls as a library keeps less, from few vectors to fewer, from many tokens to few.

Every video is decoded and encoded once (:mod:`pipeline.evaluation.tape`); each point of the dial is a library of its
own, made of the tape by the code that makes every library, and asked every query.

- Vectors: frames share a vector, 1, 2, 4 and so on, until each segment has one left; an answer comes from the search
  as people use it.
- Tokens: the budget of a segment's token set falls; an answer comes from embeddings that are read back out of the
  token sets (:mod:`pipeline.evaluation.readout`), merged as the library's settings say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.digest import DigestOptions
from pipeline.errors import OptionError
from pipeline.evaluation.library import LibraryScores
from pipeline.evaluation.readout import fit_readout
from pipeline.evaluation.runs import Judge, TokenScores
from pipeline.evaluation.tape import Tape

if TYPE_CHECKING:
    from encoders.base import Encoder

__all__ = ["FRAMES_PER_VECTOR", "TOKEN_BUDGETS", "Sweep", "VectorPoint", "sweep_tape"]

FRAMES_PER_VECTOR = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
TOKEN_BUDGETS: tuple[int | str | None, ...] = (None, 512, 256, 128, 64, 32, 16, 8)
"""Tokens of a segment; ``None`` keeps all."""


@dataclass(frozen=True)
class VectorPoint:
    """A point of the dial of vectors."""

    frames_per_vector: float
    scores: LibraryScores

    def to_dict(self) -> dict[str, Any]:
        return {"frames_per_vector": self.frames_per_vector, **self.scores.to_dict()}


@dataclass(frozen=True)
class Sweep:
    """The two dials; ``tokens`` is empty, and ``notes`` say why, where the model gives no tokens."""

    model: str
    vectors: tuple[VectorPoint, ...]
    tokens: tuple[TokenScores, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "model": self.model,
            "vectors": [point.to_dict() for point in self.vectors],
            "tokens": [point.to_dict() for point in self.tokens],
            "notes": list(self.notes),
        }


def sweep_tape(
    judge: Judge,
    tape: Tape,
    encoder: Encoder,
    digest: DigestOptions,
    *,
    frames_per_vector: Sequence[float] = FRAMES_PER_VECTOR,
    token_budgets: Sequence[int | str | None] = TOKEN_BUDGETS,
) -> Sweep:
    """Judge a tape at every point of both dials.

    Args:
        digest: the settings from which the dials depart: ``vectors`` of the token dial, ``tokens.compressor``.
        frames_per_vector: ascending; it ends where a further turn changes nothing any more.
        token_budgets: as ``tokens.budget``; none where the tape has no tokens.

    Raises:
        OptionError: a value outside what its setting allows, or a compressor that keeps everything.
        As :class:`Judge`.
    """
    notes = []
    budgets = list(token_budgets)
    if tape.tokens is None or not len(tape):
        budgets = []
        notes.append(f"{tape.info.name} gives no patch tokens, so there is no dial of tokens")
    if digest.tokens.compressor == "identity" and any(budget is not None for budget in budgets):
        raise OptionError("tokens.compressor is 'identity', which keeps everything: no dial to turn")
    # Every setting is checked before the first library is made.
    vector_dial = [
        (value, replace(digest, vectors=replace(digest.vectors, frames_per_vector=value)))
        for value in frames_per_vector
    ]
    token_dial = [
        (
            budget,
            replace(
                digest,
                tokens=replace(
                    digest.tokens, compressor="identity" if budget is None else digest.tokens.compressor, budget=budget
                ),
            ),
        )
        for budget in budgets
    ]
    points: list[VectorPoint] = []
    for value, changed in vector_dial:
        scores = judge.vectors(tape, encoder, changed, f"{value:g} frames a vector")
        if points and scores.vectors == points[-1].scores.vectors:
            break
        points.append(VectorPoint(value, scores))
    found = []
    if token_dial:
        readout = fit_readout(tape)
        for budget, changed in token_dial:
            name = "all tokens" if budget is None else f"{budget} tokens a segment"
            found.append(judge.tokens(tape, encoder, changed, readout, name))
    return Sweep(tape.info.name, tuple(points), tuple(found), tuple(notes))
