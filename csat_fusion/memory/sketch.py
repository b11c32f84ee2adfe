"""A memory that is linear in what it saw: ``Y = Phi X``, m rows however long the stream.

Time is a grid of cells of ``interval_seconds``; cell t is ``[t, t + 1) * interval_seconds`` and column t of an endless
measurement Phi. A frame fills the cells from its start to its end, each rounded to the nearest edge, and one at least;
so times that jitter by less than half a cell fall on the same cells, and a frame that lasts long counts for as much.
Cells that no frame fills are zero. As Y is a sum over cells:

* merging is adding, exact up to rounding, whatever the order;
* a frame whose tokens are still at hand is forgotten exactly, by subtracting its part;
* without them, only what is recovered can be subtracted.

Recovery is the price. It finds few atoms ``z`` (jumps of a step function, Haar or cosine atoms) with ``Y = Phi Psi z``,
all patches and channels on the same atoms. It is exact while the *whole* stream is a combination of clearly fewer atoms
than m. Everything the atoms do not model is noise: with T cells seen and energy e in each, a row holds about
``T e / m`` of it, so a span of a long and lively stream drowns, whatever the method; a memory of merged tokens is then
the better one. To keep the rest of the stream from being noise for a span, it is modelled beside it, in longer blocks.

Shapes: m rows, P patch tokens a frame, d width, T cells seen, L cells of a span, B blocks of cells modelled, K atoms,
C = P * d channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from csat_fusion.dictionaries.base import Dictionary, make_dictionary
from csat_fusion.errors import CompressionError
from csat_fusion.measurements.base import Measurement, make_measurement
from csat_fusion.memory.base import Memory, check_span
from csat_fusion.recovery.base import RECOVERIES, recover, whole_number
from csat_fusion.tokens import TokenSet

__all__ = ["SketchMemory"]

_JOINT = ("group-ista", "somp")
_PURSUITS = ("omp", "somp")
# A frame may fill this many cells, and a recovery may model this many blocks.
_MOST_CELLS = 1 << 20
_MOST_BLOCKS = 4096
_CELLS_AT_ONCE = 1 << 14
# Of the least threshold that leaves no atom at all: a weak penalty that still keeps most atoms out.
_SHARE_OF_LARGEST = 0.02
# Edges of the grid are sums of floats: a time on an edge must not depend on the last bit.
_ROUNDING_CELLS = 1e-6

Frames = Iterable[tuple[Tensor, float, float]]


class SketchMemory(Memory):
    """The linear sketch of token trajectories; see the module for what it can and cannot do.

    Args:
        rows: m, at least 1. State: ``m * P * d`` numbers.
        interval_seconds: the cell of the time grid, finite and above 0: at most the time between two frames.
        measurement: the name of an endless measurement.
        seed: of the measurement. Memories merge only with the same.
        dtype: what Y is kept in, torch.float32 or torch.float64. Rounding is relative to the largest Y ever was, so
            forgetting much of a long stream asks for float64.
        options: of the measurement, such as ``nonzeros`` of "sparse-sign"; whole numbers, numbers or text.

    Raises:
        CompressionError: a value outside what is allowed, or a measurement that is not endless.
    """

    def __init__(
        self,
        rows: int,
        *,
        interval_seconds: float = 0.5,
        measurement: str = "sparse-sign",
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ) -> None:
        super().__init__()
        if not (math.isfinite(interval_seconds) and interval_seconds > 0):
            raise CompressionError(f"interval_seconds must be finite and above 0, got {interval_seconds!r}")
        if dtype not in (torch.float32, torch.float64):
            raise CompressionError(f"a sketch is kept in torch.float32 or torch.float64, got {dtype}")
        made = make_measurement(measurement, rows, seed=seed, **options)
        if not made.endless:
            raise CompressionError(f"a memory needs an endless measurement, {measurement!r} is not one")
        self._measurement: Measurement = made
        self._name, self._seed, self._options = measurement, seed, options
        self._rows, self._interval, self._dtype = rows, float(interval_seconds), dtype
        self._sketch: Tensor | None = None  # [m, P, d]
        self._first, self._next = 0, 0  # the cells seen, half open

    @property
    def rows(self) -> int:
        """m."""
        return self._rows

    @property
    def interval_seconds(self) -> float:
        return self._interval

    @property
    def sketch(self) -> Tensor:
        """Y, ``[m, P, d]``, a copy."""
        self._like_known()
        return self._known().clone()

    @property
    def state_bytes(self) -> int:
        return 0 if self._sketch is None else self._sketch.numel() * self._sketch.element_size()

    def recover(
        self,
        start_seconds: float,
        end_seconds: float,
        *,
        dictionary: str | Dictionary = "steps",
        method: str = "somp",
        surroundings: int = 1024,
        **options: Any,
    ) -> TokenSet:
        """An estimate of the span: P tokens for each of its cells, in order of time, then patch.

        A token's span is its cell, clipped to the span asked for, and its weight the share of the cell in it. An
        estimate of cells that no frame filled is one of zeros.

        Args:
            start_seconds, end_seconds: what lies outside of the cells seen is left out.
            dictionary: the name of a dictionary, or one of as many entries as there are blocks (L and those outside).
            method: a name in ``RECOVERIES``.
            surroundings: the most blocks, of one length and each taken as constant, in which the cells seen outside
                of the span are modelled by the same dictionary; where the stream has no more cells, they are modelled
                one by one. 0 leaves the rest of the stream to be noise.
            options: of the method. Left out, ``sparsity`` is a quarter of the rows, ``selection`` "residual", and
                ``threshold`` 0.02 of the least one that leaves no atom.

        Raises:
            CompressionError: the span is not one, no cell of it was seen, or an option is outside what is allowed.
        """
        check_span(start_seconds, end_seconds)
        like = self._like_known()
        first, stop = self._cells_of(start_seconds, end_seconds)
        signal = self._estimate((first, stop), dictionary, method, surroundings, options)
        cells = torch.arange(first, stop, dtype=torch.float64)
        starts = (cells * self._interval).clamp_min(start_seconds)
        ends = ((cells + 1) * self._interval).clamp_max(end_seconds)
        # An estimate may go beyond what float16 holds.
        largest = min(torch.finfo(like.dtype).max, torch.finfo(signal.dtype).max)
        return self._token_set(signal.clamp(-largest, largest).to(like.dtype), starts, ends)

    def forget(
        self,
        start_seconds: float,
        end_seconds: float,
        frames: Frames | None = None,
        **how: Any,
    ) -> TokenSet:
        """Subtract a span; gives the tokens that were subtracted, their weight the cells that each filled.

        Args:
            start_seconds, end_seconds: the span; its edges are rounded to cells as a frame's are.
            frames: the frames of the span as they were added, ``(tokens [P, d], start_seconds, end_seconds)`` each:
                forgotten exactly, up to rounding. A frame that was never added leaves its negative behind. ``None``:
                what ``recover`` gives for the span is subtracted, which forgets as well as that recovers.
            how: options of ``recover``, where there are no frames.

        Raises:
            CompressionError: the span is not one, no cell of it was seen, or a frame does not fit or leaves the span;
                the state is as before the call.
        """
        check_span(start_seconds, end_seconds)
        self._like_known()
        if frames is not None:
            if how:
                raise CompressionError(f"{', '.join(how)}: options of a recovery, but the frames themselves are given")
            return self._forget_frames(start_seconds, end_seconds, frames)
        first, stop = self._cells(start_seconds, end_seconds)
        first, stop = max(first, self._first), min(stop, self._next)
        if first >= stop:
            raise self._nothing(start_seconds, end_seconds)
        edges = first * self._interval, stop * self._interval
        gone = self.recover(*edges, **how)
        known = self._known()
        values = gone.tokens.to(known.dtype).reshape(stop - first, -1)
        known -= (self._columns(first, stop).to(known) @ values).reshape(known.shape)
        return gone

    def _forget_frames(self, start_seconds: float, end_seconds: float, frames: Frames) -> TokenSet:
        known = self._known()
        difference = torch.zeros_like(known)
        gone: list[Tensor] = []
        spans: list[tuple[float, float, int]] = []
        for tokens, start, end in frames:
            tokens = self._checked(tokens, start, end)
            if start < start_seconds or end > end_seconds:
                raise CompressionError(
                    f"the frame [{start}, {end}) s leaves the span [{start_seconds}, {end_seconds}) s to forget"
                )
            first, stop = self._cells(start, end)
            if first < self._first or stop > self._next:
                raise self._nothing(start, end)
            self._add_to(difference, tokens, first, stop)
            gone.append(tokens)
            spans.append((start, end, stop - first))
        if not gone:
            raise CompressionError("there must be at least one frame to forget; None forgets by recovering")
        known -= difference
        starts, ends, cells = torch.tensor(spans, dtype=torch.float64).T
        return self._token_set(torch.stack(gone).clone(), starts, ends, cells)

    def _take(self, tokens: Tensor, start_seconds: float, end_seconds: float) -> None:
        first, stop = self._cells(start_seconds, end_seconds)
        if self._sketch is not None and first < self._next:
            raise CompressionError(
                f"the frame at {start_seconds} s falls on a cell of {self._interval} s that is filled already; "
                f"interval_seconds must be at most the time between frames"
            )
        if self._sketch is None:
            self._sketch = torch.zeros(self._rows, *tokens.shape, dtype=self._dtype, device=tokens.device)
            self._first = first
        self._add_to(self._sketch, tokens, first, stop)
        self._next = stop

    def _take_in(self, other: SketchMemory) -> None:
        assert other._sketch is not None
        if self._sketch is None:
            self._sketch, self._first, self._next = other._sketch.clone(), other._first, other._next
            return
        self._sketch += other._sketch
        self._first, self._next = min(self._first, other._first), max(self._next, other._next)

    def _cells(self, start_seconds: float, end_seconds: float) -> tuple[int, int]:
        """The cells that a frame fills."""
        if start_seconds < -self._interval / 2:
            raise CompressionError(f"the grid of a sketch starts at 0 s, got {start_seconds} s")
        first = max(0, math.floor(start_seconds / self._interval + 0.5 + _ROUNDING_CELLS))
        stop = max(first + 1, math.floor(end_seconds / self._interval + 0.5 + _ROUNDING_CELLS))
        if stop - first > _MOST_CELLS:
            raise CompressionError(
                f"[{start_seconds}, {end_seconds}) s is {stop - first} cells of {self._interval} s, "
                f"the most at once is {_MOST_CELLS}"
            )
        return first, stop

    def _cells_of(self, start_seconds: float, end_seconds: float) -> tuple[int, int]:
        """The cells seen that a span touches."""
        first = max(self._first, math.floor(start_seconds / self._interval + _ROUNDING_CELLS))
        stop = min(self._next, math.ceil(end_seconds / self._interval - _ROUNDING_CELLS))
        if first >= stop:
            raise self._nothing(start_seconds, end_seconds)
        return first, stop

    def _nothing(self, start_seconds: float, end_seconds: float) -> CompressionError:
        return CompressionError(
            f"nothing of [{start_seconds}, {end_seconds}) s is held; this memory saw "
            f"[{self._first * self._interval}, {self._next * self._interval}) s"
        )

    def _known(self) -> Tensor:
        assert self._sketch is not None
        return self._sketch

    def _columns(self, first: int, stop: int) -> Tensor:
        return self._measurement.block(first, stop)

    def _column_sum(self, first: int, stop: int) -> Tensor:
        """The sum of columns ``[m]``, so many at a time that memory stays bounded."""
        total = torch.zeros(self._rows, dtype=torch.float64)
        for at in range(first, stop, _CELLS_AT_ONCE):
            total += self._columns(at, min(at + _CELLS_AT_ONCE, stop)).sum(dim=1)
        return total

    def _add_to(self, sketch: Tensor, tokens: Tensor, first: int, stop: int) -> None:
        column = self._column_sum(first, stop)
        rows = column.nonzero()[:, 0]  # few, where Phi is sparse
        values = column[rows].to(sketch)
        sketch[rows.to(sketch.device)] += values[:, None, None] * tokens.to(sketch.dtype)

    def _estimate(
        self,
        span: tuple[int, int],
        dictionary: str | Dictionary,
        method: str,
        surroundings: int,
        options: dict[str, Any],
    ) -> Tensor:
        """The signal of the cells, ``[L, P, d]``."""
        first, stop = span
        whole_number("surroundings", surroundings, 0, _MOST_BLOCKS)
        edges, before = self._blocks(first, stop, surroundings)
        length = len(edges) - 1
        if length > _MOST_BLOCKS:
            raise CompressionError(
                f"{stop - first} cells of {self._interval} s and {length - stop + first} blocks outside are to be "
                f"modelled, the most is {_MOST_BLOCKS}; ask for a shorter span or fewer surroundings"
            )
        psi = make_dictionary(dictionary, length) if isinstance(dictionary, str) else dictionary
        if psi.length != length:
            raise CompressionError(f"the dictionary is for {psi.length} blocks, {length} are modelled with it")
        known = self._known()
        with torch.no_grad(), torch.autocast(known.device.type, enabled=False):
            operator = psi.analyze(self._block_columns(edges).mT).mT  # Phi Psi, [m, K]
            # Long blocks make long columns; a penalty must not favour those.
            norm = torch.linalg.vector_norm(operator, dim=0)
            norm = torch.where(norm > 0, norm, 1.0)
            code = self._solve(known.flatten(1), (operator / norm).to(known), method, options)
            signal = psi.synthesize(code.to(device="cpu", dtype=torch.float64) / norm[:, None])
            signal = signal[before : before + stop - first].to(known)
        return signal.reshape(stop - first, *known.shape[1:])

    def _blocks(self, first: int, stop: int, most: int) -> tuple[Tensor, int]:
        """Edges ``[B + 1]`` of the blocks to model, one for each cell of the span; how many are before the span."""
        outside = (first - self._first) + (self._next - stop)
        before, after = torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64)
        if most and outside:
            # Both sides may end with a shorter block, so one fewer is reckoned with.
            size = math.ceil(outside / max(1, most - 1))
            before = torch.arange(first - size, self._first - size, -size).clamp_min(self._first).flip(0)
            after = torch.arange(stop + size, self._next + size, size).clamp_max(self._next)
        return torch.cat([before, torch.arange(first, stop + 1), after]), len(before)

    def _block_columns(self, edges: Tensor) -> Tensor:
        """The sums of the columns of each block, ``[m, B]``, made so many at a time that memory stays bounded."""
        columns = torch.zeros(self._rows, len(edges) - 1, dtype=torch.float64)
        first, stop = int(edges[0]), int(edges[-1])
        for at in range(first, stop, _CELLS_AT_ONCE):
            end = min(at + _CELLS_AT_ONCE, stop)
            block = torch.searchsorted(edges, torch.arange(at, end), right=True) - 1
            columns.index_add_(1, block, self._columns(at, end))
        return columns

    def _solve(self, y: Tensor, operator: Tensor, method: str, options: dict[str, Any]) -> Tensor:
        """The code ``[K, C]``."""
        options = dict(options)
        if method == "group-ista":
            options.setdefault("accelerate", True)
        basis: Tensor | None = None
        if method in _JOINT and y.shape[1] > y.shape[0]:
            # Joint methods read norms over channels only. Rotating the C channels onto the m that Y spans keeps those,
            # and the problem shrinks from C channels to m.
            basis, rotated = torch.linalg.qr(y.mT)  # [C, m], [m, m]
            y = rotated.mT
        if method in _PURSUITS:
            options.setdefault("sparsity", max(1, min(self._rows // 4, *operator.shape)))
            options.setdefault("selection", "residual")  # steps in time resemble each other
        elif method in RECOVERIES and "threshold" not in options:
            slope = operator.mT.double() @ y.double()
            reach = torch.linalg.vector_norm(slope, dim=1) if method in _JOINT else slope.abs()
            options["threshold"] = _SHARE_OF_LARGEST * float(reach.max())
        code = recover(method, y, operator, **options).code
        return code if basis is None else code @ basis.mT

    def _token_set(self, tokens: Tensor, starts: Tensor, ends: Tensor, cells: Tensor | None = None) -> TokenSet:
        """``tokens [L, P, d]`` as a set; the weight is the cells that each fills."""
        length, patches, width = tokens.shape
        weight = (ends - starts) / self._interval if cells is None else cells
        device = tokens.device
        return TokenSet(
            tokens=tokens.reshape(length * patches, width),
            weight=weight.to(device=device, dtype=torch.float32).repeat_interleave(patches),
            start_seconds=starts.to(device).repeat_interleave(patches),
            end_seconds=ends.to(device).repeat_interleave(patches),
            patch=torch.arange(patches, device=device).repeat(length),
        )

    def _config(self) -> dict[str, Any]:
        return {
            "rows": self._rows,
            "interval_seconds": self._interval,
            "measurement": self._name,
            "seed": self._seed,
            "sketch_dtype": str(self._dtype).removeprefix("torch."),
            "options": self._options,
        }

    def _facts(self) -> dict[str, Any]:
        return {"first_cell": self._first, "next_cell": self._next}

    def _parts(self) -> dict[str, Tensor]:
        return {"sketch": self._known()}

    @classmethod
    def _restored(cls, about: dict[str, Any], parts: dict[str, Tensor]) -> SketchMemory:
        memory = cls(
            about["rows"],
            interval_seconds=about["interval_seconds"],
            measurement=about["measurement"],
            seed=about["seed"],
            dtype=getattr(torch, about["sketch_dtype"]),
            **about["options"],
        )
        memory._sketch = parts["sketch"]
        memory._first, memory._next = about["first_cell"], about["next_cell"]
        return memory
