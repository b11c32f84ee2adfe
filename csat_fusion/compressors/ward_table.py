"""The host side of exact Ward merging: which slots are nearest, in one matrix of costs, and the merging itself.

Only costs steer the merging, and those of a merged token follow from those of its two parts (G. N. Lance and
W. T. Williams, "A general theory of classificatory sorting strategies", 1967), so no token is needed here.

Shapes: S slots, R rows that changed in a frame.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["WardTable"]

# Spans come from sums of floats: a gap of exactly gap_seconds must not depend on the last bit.
_ROUNDING_SECONDS = 1e-9
# An angle from float64 distances is known to about this; so a fidelity of 1 lets equal tokens merge.
_ROUNDING_RADIANS = 1e-6
# Costs stay far enough within their type that a sum of some is finite too.
_LARGEST_COST = {np.float32: 1e36, np.float64: 1e300}
# Each column and what a free slot holds; a free slot is infinitely far from everything in time.
_COLUMNS: dict[str, tuple[str, float]] = {
    "weight": ("f8", 0),
    "start": ("f8", np.inf),
    "end": ("f8", -np.inf),
    "patch": ("i8", -1),
    "node": ("i8", -1),
    "nearest": ("i8", 0),
    "nearest_cost": ("f8", np.inf),
    "nearest_version": ("i8", 0),
    "version": ("i8", 0),
    "norm": ("f8", 0),
    "radius": ("f8", 0),
    "top": ("i8", 0),
    "bottom": ("i8", 0),
    "left": ("i8", 0),
    "right": ("i8", 0),
}
Floats: TypeAlias = "npt.NDArray[np.float64]"
Ints: TypeAlias = "npt.NDArray[np.int64]"
Bools: TypeAlias = "npt.NDArray[np.bool_]"


class WardTable:
    """Slots, each free or a token: weight, span, patch, its nearest, and Ward's cost to all others.

    A slot that changes looks for its nearest; others that pointed at it are stale (the version tells) until they come
    up as the least. So each pair is seen by the one of the two that changed last, and the least is exact.

    Args:
        slots: how many there are at first.
        dtype: float32 or float64, of the matrix ``cost [S, S]``.
        gap_seconds: slots with more time than this between their spans are not paired.
        least_cosine: pair only slots whose members' cosines to the mean surely stay at this or above. A slot knows the
            largest angle of a member to its mean; when the mean turns by some angle, that grows by as much at most.
        cells: pair only slots whose boxes of patches are at most this many grid cells apart.
        columns: patches in a row of the grid; needed with ``cells``.
    """

    weight: Floats
    start: Floats
    end: Floats
    patch: Ints
    node: Ints
    nearest: Ints
    nearest_cost: Floats
    nearest_version: Ints
    version: Ints
    norm: Floats
    radius: Floats
    top: Ints
    bottom: Ints
    left: Ints
    right: Ints

    def __init__(
        self,
        slots: int,
        dtype: type[np.float32] | type[np.float64],
        *,
        gap_seconds: float,
        least_cosine: float | None = None,
        cells: int | None = None,
        columns: int = 1,
    ) -> None:
        # Finite even where the gap is not, because free slots are kept out by their infinite distance in time.
        self.limit_seconds = min(gap_seconds + _ROUNDING_SECONDS, 1e300)
        self.widest = None if least_cosine is None else math.acos(least_cosine) + _ROUNDING_RADIANS
        self.cells = cells
        self.columns = columns
        self.numbers = [np.zeros((), dtype=dtype) for _ in range(5)]  # a Python number costs more than a small sum
        self.plain = least_cosine is None and cells is None  # only time keeps slots apart
        self.count = 0
        self.latest = -math.inf  # start of any slot in use
        self.largest = _LARGEST_COST[dtype]
        self.large = False  # whether costs may come near the end of their type
        for name, (kind, empty) in _COLUMNS.items():
            setattr(self, name, np.full(slots, empty, dtype=kind))
        self.mass = np.zeros(slots, dtype=dtype)  # the weight in the type of the matrix
        # Of a slot with itself or one that is free: largest, which is finite so that sums and differences stay numbers.
        self.cost = np.full((slots, slots), self.largest, dtype=dtype)

    def __len__(self) -> int:
        return len(self.weight)

    def grow(self, slots: int) -> None:
        """Room for ``slots`` in all."""
        more = slots - len(self)
        for name, (kind, empty) in _COLUMNS.items():
            setattr(self, name, np.concatenate([getattr(self, name), np.full(more, empty, dtype=kind)]))
        self.mass = np.concatenate([self.mass, np.zeros_like(self.mass, shape=more)])
        self.cost = np.pad(self.cost, (0, more), constant_values=self.largest)

    def insert(self, patches: Ints, weight: float, start: float, end: float, norm: Floats | None) -> Ints:
        """Put a token of each of these patches into a free slot; returns the slots. ``measure`` them next."""
        slots: Ints = np.flatnonzero(self.weight == 0)[: len(patches)]
        self.weight[slots] = self.mass[slots] = weight
        self.start[slots], self.end[slots] = start, end
        self.latest = max(self.latest, start)
        self.patch[slots] = patches
        self.radius[slots] = 0
        if norm is not None:
            self.norm[slots] = norm
        self.top[slots] = self.bottom[slots] = patches // self.columns
        self.left[slots] = self.right[slots] = patches % self.columns
        self.count += len(patches)
        return slots

    def measure(self, rows: Ints, square: npt.NDArray[np.floating]) -> None:
        """Take the squared distances ``[R, S]`` of the slots ``rows [R]``, whose tokens or weights are new."""
        mass = self.mass[rows, None]
        with np.errstate(over="ignore"):  # what leaves the type is brought back below
            cost = square * (mass * (self.mass / np.maximum(mass + self.mass, np.finfo(self.mass.dtype).tiny)))
        if self.large or float(cost.max()) > 1e-4 * self.largest:
            self.large = True
            np.minimum(cost, self.largest, out=cost)
        cost[:, self.weight == 0] = self.largest
        cost[np.arange(len(rows)), rows] = self.largest
        self.cost[rows] = cost
        self.cost[:, rows] = cost.T
        cost[self._blocked(rows[:, None], cost)] = np.inf
        cost[np.arange(len(rows)), rows] = np.inf
        self.version[rows] += 1
        nearest = cost.argmin(axis=1)
        self.nearest[rows] = nearest
        self.nearest_cost[rows] = cost[np.arange(len(rows)), nearest]
        self.nearest_version[rows] = self.version[nearest]

    def shrink(self, limit: int | None) -> tuple[list[tuple[int, int]], float]:
        """Merge the cheapest pairs until ``limit`` slots are in use; with None, until no pair may merge.

        Returns:
            The merges as ``(slot that stays, slot that is free now)``, and the cost of the last within the gap, or 0.
        """
        merged: list[tuple[int, int]] = []
        cost = 0.0
        nearest, nearest_cost = self.nearest, self.nearest_cost
        version, nearest_version = self.version, self.nearest_version
        while limit is None or self.count > limit:
            keep = int(nearest_cost.argmin())
            least = nearest_cost.item(keep)
            if least == math.inf:
                if limit is None:
                    break
                keep, drop = self._lightest_pair()
            else:
                drop = nearest.item(keep)
                if nearest_version.item(keep) != version.item(drop):
                    self._look(keep, self.cost[keep])
                    continue
                cost = least
            self._merge(keep, drop)
            merged.append((keep, drop))
        return merged, cost

    def order(self) -> Ints:
        """Slots in use in order of start, then end, then patch."""
        live = np.flatnonzero(self.weight > 0)
        ordered: Ints = live[np.lexsort((self.patch[live], self.end[live], self.start[live]))]
        return ordered

    def _look(self, slot: int, cost: npt.NDArray[np.floating]) -> None:
        """Find the nearest of a slot by its row of costs."""
        if self.plain:  # mostly the cheapest of all may be merged, and then nothing else need be looked at
            nearest = int(cost.argmin())
            least = cost.item(nearest)
            if (
                least < 0.5 * self.largest
                and self.end.item(nearest) >= self.start.item(slot) - self.limit_seconds
                and self.start.item(nearest) <= self.end.item(slot) + self.limit_seconds
            ):
                self.nearest[slot] = nearest
                self.nearest_cost[slot] = least
                self.nearest_version[slot] = self.version[nearest]
                return
        row = cost.copy()
        row[self._blocked(slot, cost)] = np.inf
        row[slot] = np.inf
        nearest = int(row.argmin())
        self.nearest[slot] = nearest
        self.nearest_cost[slot] = row[nearest]
        self.nearest_version[slot] = self.version[nearest]

    def _lightest_pair(self) -> tuple[int, int]:
        """The lightest token and its cheapest partner, whatever lies between them."""
        light = int(np.where(self.weight > 0, self.weight, np.inf).argmin())
        cost = np.where(self.weight > 0, self.cost[light], np.inf)
        cost[light] = np.inf
        return light, int(cost.argmin())

    def _merge(self, keep: int, drop: int) -> None:
        """Merge slot ``drop`` into ``keep``."""
        weight, cost = self.weight, self.cost
        held, other = float(weight[keep]), float(weight[drop])
        total = held + other
        mine, its = cost[keep], cost[drop]
        between = float(mine[drop])
        if self.widest is not None:
            self._turn(keep, drop, between)
        # ((w_k + w_a) c_ak + (w_k + w_b) c_bk - w_k c_ab) / (w_k + w_a + w_b), so written that no term is larger than
        # the costs
        apart, left, right, whole, zero = self.numbers
        apart[()], left[()], right[()], whole[()] = between, other / total, held / total, total
        row = mine + its
        row -= apart
        part = mine * left
        part += its * right
        part -= apart
        factor = self.mass + whole
        np.divide(whole, factor, out=factor)
        part *= factor
        row -= part
        np.maximum(row, zero, out=row)
        if self.large:
            np.minimum(row, self.largest, out=row)
        row[keep] = row[drop] = self.largest
        cost[keep] = row
        cost[:, keep] = row
        cost[:, drop] = self.largest
        weight[keep] = self.mass[keep] = total
        weight[drop] = self.mass[drop] = 0
        if self.start[drop] < self.start[keep]:
            self.start[keep] = self.start[drop]
        if self.end[drop] > self.end[keep]:
            self.end[keep] = self.end[drop]
        self.start[drop], self.end[drop] = np.inf, -np.inf
        if self.patch[keep] != self.patch[drop]:
            self.patch[keep] = -1
        if self.cells is not None:
            self.top[keep] = min(self.top[keep], self.top[drop])
            self.bottom[keep] = max(self.bottom[keep], self.bottom[drop])
            self.left[keep] = min(self.left[keep], self.left[drop])
            self.right[keep] = max(self.right[keep], self.right[drop])
        self.version[keep] += 1
        self.version[drop] += 1
        self._look(keep, row)
        self.nearest_cost[drop] = np.inf
        self.count -= 1

    def _blocked(self, rows: int | Ints, cost: npt.NDArray[np.floating]) -> Bools:
        """Which slots may not merge with ``rows``, one slot or ``[R, 1]``: ``[S]`` or ``[R, S]``."""
        blocked: Bools = self.end < self.start[rows] - self.limit_seconds  # free slots too: they end at -inf
        end = self.end[rows]
        if not isinstance(rows, int) or end + self.limit_seconds < self.latest:  # else nothing starts too late
            blocked |= self.start > end + self.limit_seconds
        if self.cells is not None:
            blocked |= (self.top > self.bottom[rows] + self.cells) | (self.bottom < self.top[rows] - self.cells)
            blocked |= (self.left > self.right[rows] + self.cells) | (self.right < self.left[rows] - self.cells)
        if self.widest is not None:
            radius = self._merged(rows, slice(None), cost)[1]
            blocked |= ~(radius <= self.widest)
        return blocked

    def _turn(self, keep: int, drop: int, cost: float) -> None:
        norm, radius = self._merged(keep, drop, cost)
        self.norm[keep], self.radius[keep] = norm, radius

    def _merged(
        self, a: int | Ints, b: int | slice, cost: float | npt.NDArray[np.floating]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """The norm of the merged mean of two slots, and a bound on the angle of every member to it."""
        held, other = self.weight[a], self.weight[b]
        mine, its = self.norm[a], self.norm[b]
        with np.errstate(divide="ignore", invalid="ignore"):  # free slots and zero norms, set right below
            share, rest = held / (held + other), other / (held + other)
            within = cost * (1 / (held + other))  # share * rest * squared distance
            norm = np.sqrt(np.maximum(share * mine**2 + rest * its**2 - within, 0))
            turn = _angle(mine, norm, within * (rest / share)) + self.radius[a]
            turned = _angle(its, norm, within * (share / rest)) + self.radius[b]
            radius = np.maximum(turn, turned)
        zero, nil = mine == 0, its == 0
        return np.where(zero & nil, 0.0, norm), np.where(zero & nil, 0.0, np.where(zero | nil, np.inf, radius))


def _angle(a: Floats, b: Floats, square: Floats) -> Floats:
    """The angle between vectors of norms ``a`` and ``b`` whose squared distance is known: exact for small ones too."""
    half = np.sqrt(np.clip((square - (a - b) ** 2) / (4 * a * b), 0, 1))  # the sine of half the angle
    angle: Floats = 2 * np.arcsin(half)
    return angle
