"""The linear sketch and the adaptive memory: what is particular to each."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from csat_fusion.dictionaries.base import make_dictionary
from csat_fusion.errors import CompressionError
from csat_fusion.measurements.base import make_measurement
from csat_fusion.memory.adaptive import AdaptiveMemory
from csat_fusion.memory.sketch import SketchMemory
from csat_fusion.recovery.base import recover
from csat_fusion.tokens import TokenSet

Frame = tuple[Tensor, float, float]


def random_signal(cells: int, patches: int = 3, width: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(cells, patches, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def steps(cells: int, jumps: int, patches: int = 3, width: int = 5, seed: int = 0, least: int = 1) -> Tensor:
    """``[T, P, d]``: constant but for ``jumps`` jumps, at multiples of ``least``."""
    generator = torch.Generator().manual_seed(seed)
    at = (torch.randperm(cells // least - 1, generator=generator)[:jumps] + 1) * least
    level = torch.zeros(cells, dtype=torch.int64)
    level[at] = 1
    values = torch.randn(jumps + 1, patches, width, generator=generator, dtype=torch.float64)
    return values[level.cumsum(0)]


def add_all(memory: Any, signal: Tensor, start: int = 0, interval: float = 0.5) -> Any:
    for t, frame in enumerate(signal):
        memory.add(frame, (start + t) * interval, (start + t + 1) * interval)
    return memory


def sketch(rows: int = 32, **options: Any) -> SketchMemory:
    return SketchMemory(rows, **{"interval_seconds": 0.5, "dtype": torch.float64, **options})


def values(tokens: TokenSet, signal: Tensor) -> Tensor:
    return tokens.tokens.reshape(-1, *signal.shape[1:])


@pytest.mark.parametrize("measurement", ["sparse-sign", "gaussian", "rademacher"])
def test_a_sketch_is_phi_times_x(measurement: str) -> None:
    signal = random_signal(40)
    phi = make_measurement(measurement, 32, 60, seed=7).matrix()[:, 20:]
    memory = add_all(sketch(measurement=measurement, seed=7), signal, start=20)
    torch.testing.assert_close(memory.sketch, torch.einsum("mt,tpd->mpd", phi, signal))


def test_frames_fill_the_cells_that_they_last() -> None:
    a, b, c = random_signal(3)
    memory = sketch(interval_seconds=1.0)
    for frame, start, end in ((a, 0.1, 2.9), (b, 3.4, 3.6), (c, 4.3, 9.4)):
        memory.add(frame, start, end)
    phi = make_measurement("sparse-sign", 32, 9).matrix()
    signal = torch.stack([a, a, a, b, c, c, c, c, c])
    torch.testing.assert_close(memory.sketch, torch.einsum("mt,tpd->mpd", phi, signal))


def test_two_frames_on_one_cell_are_refused() -> None:
    memory = sketch(interval_seconds=1.0)
    memory.add(random_signal(1)[0], 0.0, 0.6)
    before = memory.to_bytes()
    with pytest.raises(CompressionError, match=r"frame at 0\.4 s falls on a cell of 1\.0 s that is filled already"):
        memory.add(random_signal(1)[0], 0.4, 1.2)
    assert memory.to_bytes() == before
    with pytest.raises(CompressionError, match=r"starts at 0 s, got -3\.0 s"):
        sketch().add(random_signal(1)[0], -3.0, 1.0)
    with pytest.raises(CompressionError, match=r"2000000 cells of 0\.5 s, the most at once is 1048576"):
        sketch().add(random_signal(1)[0], 0.0, 1e6)


@settings(max_examples=30, deadline=None)
@given(cells=st.integers(2, 40), owners=st.integers(2, 4), seed=st.integers(0, 999), double=st.booleans())
def test_merging_is_the_sketch_of_the_union(cells: int, owners: int, seed: int, double: bool) -> None:
    """Whichever part saw which frame, and in whatever order the parts come together."""
    signal = random_signal(cells, seed=seed)
    dtype = torch.float64 if double else torch.float32
    whole = add_all(sketch(dtype=dtype), signal.to(dtype))
    generator = torch.Generator().manual_seed(seed)
    owner = torch.randint(owners, (cells,), generator=generator)
    parts = [sketch(dtype=dtype) for _ in range(owners)]
    for t, frame in enumerate(signal.to(dtype)):
        parts[int(owner[t])].add(frame, t * 0.5, t * 0.5 + 0.5)
    total = sketch(dtype=dtype)
    for k in torch.randperm(owners, generator=generator).tolist():
        total.merge(parts[k])
    limit = 1e-12 if double else 1e-5
    torch.testing.assert_close(total.sketch, whole.sketch, rtol=0, atol=limit)
    assert total.span == whole.span
    assert total.frames_seen == cells


def test_frames_at_hand_are_forgotten_exactly() -> None:
    signal = random_signal(60)
    whole = add_all(sketch(), signal)
    frames = [(signal[t], t * 0.5, t * 0.5 + 0.5) for t in range(20, 30)]
    gone = whole.forget(10, 15, frames=frames)
    without = add_all(sketch(), signal[:20])
    add_all(without, signal[30:], start=30)
    torch.testing.assert_close(whole.sketch, without.sketch, rtol=0, atol=1e-12)
    assert torch.equal(values(gone, signal), signal[20:30])
    assert gone.total_weight == 30
    assert gone.span == (10, 15)


def test_forgetting_refuses_what_it_cannot_have_seen() -> None:
    signal = random_signal(20)
    memory = add_all(sketch(), signal)
    before = memory.to_bytes()
    good = (signal[0], 0.0, 0.5)
    for frames, message in (
        ([good, (signal[4], 2.0, 2.5)], r"the frame \[2\.0, 2\.5\) s leaves the span \[0, 2\) s"),
        ([good, (signal[1][:2], 0.5, 1.0)], "2 tokens, those before it 3"),
        ([good, (signal[1] * math.nan, 0.5, 1.0)], "size nan"),
        ([], "at least one frame"),
    ):
        with pytest.raises(CompressionError, match=message):
            memory.forget(0, 2, frames=frames)
    with pytest.raises(CompressionError, match=r"nothing of \[10\.0, 10\.5\) s is held"):
        memory.forget(0, 20, frames=[good, (signal[1], 10.0, 10.5)])
    with pytest.raises(CompressionError, match="method: options of a recovery"):
        memory.forget(0, 2, frames=[good], method="somp")
    assert memory.to_bytes() == before


def test_what_is_recovered_is_forgotten() -> None:
    signal = steps(64, 4)
    whole = add_all(sketch(64), signal)
    gone = whole.forget(10, 20)
    torch.testing.assert_close(values(gone, signal), signal[20:40])
    without = add_all(sketch(64), signal[:20])
    add_all(without, signal[40:], start=40)
    torch.testing.assert_close(whole.sketch, without.sketch, rtol=0, atol=1e-9)


@pytest.mark.parametrize("measurement", ["sparse-sign", "gaussian", "rademacher"])
@pytest.mark.parametrize("dictionary", ["steps", "haar", "dct"])
def test_sparse_streams_come_back(measurement: str, dictionary: str) -> None:
    """Jumps at multiples of 16 of 128 are few Haar atoms; three cosines are three DCT atoms."""
    if dictionary == "dct":
        atoms = make_dictionary("dct", 128).matrix().double()[:, [1, 5, 22]]
        signal = torch.einsum("tk,kpd->tpd", atoms, random_signal(3))
    else:
        signal = steps(128, 3, least=16 if dictionary == "haar" else 1)
    memory = add_all(sketch(64, measurement=measurement), signal)
    for first, stop in ((0, 128), (96, 128), (40, 41)):
        got = memory.recover(first / 2, stop / 2, dictionary=dictionary)
        if dictionary == "dct" and (first, stop) != (0, 128):
            continue  # the same cells, in the same order: nothing else to see
        torch.testing.assert_close(values(got, signal), signal[first:stop], rtol=0, atol=1e-8)
        assert torch.equal(got.start_seconds, torch.arange(first, stop).double().repeat_interleave(3) / 2)
        assert torch.equal(got.patch, torch.arange(3).repeat(stop - first))
        assert (got.weight == 1).all()


def test_the_rest_of_the_stream_is_noise_unless_it_is_modelled() -> None:
    signal = steps(256, 3)
    memory = add_all(sketch(64), signal)

    def error(**options: Any) -> float:
        got = values(memory.recover(100, 108, **options), signal)
        return float((got - signal[200:216]).norm() / signal[200:216].norm())

    assert error() < 1e-9
    assert error(surroundings=0) > 0.5
    assert error(surroundings=64) < 0.5 * error(surroundings=0)  # jumps fall within blocks


def test_a_convex_recovery_of_a_noisy_stream() -> None:
    signal = steps(64, 4)
    noisy = signal + 0.05 * random_signal(64, seed=5)
    memory = add_all(sketch(48), noisy)
    for options in ({"method": "group-ista"}, {"method": "somp", "sparsity": 5}, {"method": "fista"}):
        got = values(memory.recover(0, 32, **options), signal)
        assert (got - signal).norm() < 0.2 * signal.norm()


@pytest.mark.parametrize(("method", "options"), [("somp", {"sparsity": 6}), ("group-ista", {"threshold": 0.3})])
def test_many_channels_are_rotated_onto_few_and_back(method: str, options: dict[str, Any]) -> None:
    """12 rows, 120 channels: the same as the recovery of all of them."""
    signal = steps(32, 3, patches=6, width=20) + 0.1 * random_signal(32, 6, 20)
    memory = add_all(sketch(12, nonzeros=4), signal)
    got = values(memory.recover(0, 16, method=method, **options), signal)
    phi = make_measurement("sparse-sign", 12, 32, nonzeros=4).matrix()
    psi = make_dictionary("steps", 32).matrix().double()
    operator = phi @ psi
    norm = operator.norm(dim=0)
    more: dict[str, Any] = {"accelerate": True} if method == "group-ista" else {"selection": "residual"}
    code = recover(method, memory.sketch.flatten(1), operator / norm, **options, **more).code / norm[:, None]
    torch.testing.assert_close(got.flatten(1), psi @ code, rtol=1e-4, atol=1e-4)


@settings(max_examples=100, deadline=None)
@given(seen=st.integers(1, 300), first=st.integers(0, 299), length=st.integers(1, 300), most=st.integers(0, 40))
def test_blocks_tile_what_was_seen(seen: int, first: int, length: int, most: int) -> None:
    first = min(first, seen - 1)
    stop = min(seen, first + length)
    memory = sketch(4)
    memory.add(random_signal(1)[0], 5.0, 5.0 + seen / 2)  # cells 10 to 10 + seen
    edges, before = memory._blocks(10 + first, 10 + stop, most)
    sizes = edges.diff().tolist()
    assert edges[before] == 10 + first
    assert sizes[before : before + stop - first] == [1] * (stop - first)
    assert len(sizes) <= stop - first + max(most, 2 * (most > 0))
    assert min(sizes) >= 1
    assert (int(edges[0]), int(edges[-1])) == ((10, 10 + seen) if most else (10 + first, 10 + stop))
    phi = make_measurement("sparse-sign", 4, 10 + seen).matrix()
    want = torch.stack([phi[:, a:b].sum(1) for a, b in pairwise(edges.tolist())], dim=1)
    torch.testing.assert_close(memory._block_columns(edges), want)


def test_a_long_stream() -> None:
    """Hours in one state: a still scene, an event, another scene."""
    before, event, after = random_signal(3)
    memory = sketch(32)
    memory.add(before, 0, 20_000)
    for t in range(40_000, 40_010):
        memory.add(event, t / 2, t / 2 + 0.5)
    memory.add(after, 20_005, 40_000)
    assert memory.state_bytes == 32 * 15 * 8
    got = memory.recover(20_000, 20_005)
    torch.testing.assert_close(values(got, before[None]), event.expand(10, 3, 5), rtol=0, atol=1e-6)


def test_options_of_a_sketch_are_checked() -> None:
    for options, message in (
        ({"interval_seconds": 0}, "interval_seconds must be finite and above 0, got 0"),
        ({"interval_seconds": math.inf}, "got inf"),
        ({"dtype": torch.float16}, r"torch\.float32 or torch\.float64, got torch\.float16"),
        ({"measurement": "gausian"}, r"no measurement 'gausian' \(did you mean 'gaussian'\?\)"),
        ({"measurement": "hadamard"}, "columns|endless"),
        ({"nonzeros": 99}, "nonzeros must be .* got 99"),
    ):
        with pytest.raises(CompressionError, match=message):
            sketch(**options)
    memory = add_all(sketch(), random_signal(20))
    for ask, message in (
        ({"method": "samp"}, "no recovery 'samp'"),
        ({"dictionary": "step"}, r"no dictionary 'step' \(did you mean 'steps'\?\)"),
        ({"dictionary": make_dictionary("dct", 19)}, "the dictionary is for 19 blocks, 20 are modelled with it"),
        ({"surroundings": -1}, "surroundings must be a whole number, 0 to 4096, got -1"),
        ({"sparsity": 33}, "sparsity must be a whole number, 1 to 20, got 33"),
        ({"treshold": 1.0}, "no option 'treshold'"),
    ):
        with pytest.raises(CompressionError, match=message):
            memory.recover(0, 5, **ask)  # type: ignore[arg-type]
    long = sketch()
    long.add(random_signal(1)[0], 0, 3000)
    with pytest.raises(CompressionError, match=r"5000 cells of 0\.5 s and 1000 blocks outside .* the most is 4096"):
        long.recover(0, 2500)


def drift(frames: int, patches: int = 1, width: int = 16, seed: int = 0) -> Tensor:
    return 0.1 * random_signal(frames, patches, width, seed).cumsum(0) + random_signal(1, patches, width, seed + 1)


def test_the_budget_is_exact_and_nothing_is_lost() -> None:
    signal = drift(60, patches=4)
    memory = AdaptiveMemory(10)
    for t, frame in enumerate(signal):
        memory.add(frame, t * 0.5, t * 0.5 + 0.5)
        assert len(memory) == min(10, 4 * (t + 1))
        got = memory.recover(0, 30)
        assert got.total_weight == pytest.approx(4 * (t + 1), rel=1e-6)
        mean = (got.tokens * got.weight[:, None]).sum(0) / got.weight.sum()
        torch.testing.assert_close(mean, signal[: t + 1].flatten(0, 1).mean(0), rtol=1e-5, atol=1e-5)


def naive(signal: Tensor, budget: int, fine: float, decay: float, gap: float) -> list[tuple[float, float, float]]:
    """The same in the plainest way: all pairs, every time. Start, end and weight of each token."""
    held: list[tuple[Tensor, float, float, float]] = []
    for t, frame in enumerate(signal):
        held += [(row, 1.0, t * 0.5, t * 0.5 + 0.5) for row in frame]
        now = t * 0.5 + 0.5
        while len(held) > budget:
            best = (math.inf, 0, 1)
            for i in range(len(held)):
                for j in range(i):
                    (a, v, s, e), (b, w, s2, e2) = held[i], held[j]
                    coarse = 1 + (now - max(e, e2)) / fine
                    if max(s, s2) - min(e, e2) <= gap * coarse + 1e-9:
                        cost = v * w / (v + w) * float((a - b).square().sum()) / coarse**decay
                        best = min(best, (cost, j, i))
            assert best[0] < math.inf
            (a, v, s, e), (b, w, s2, e2) = held.pop(best[2]), held.pop(best[1])
            held.append(((v * a + w * b) / (v + w), v + w, min(s, s2), max(e, e2)))
    return sorted((s, e, w) for _, w, s, e in held)


@pytest.mark.parametrize(("decay", "gap"), [(2.0, 1.0), (0.0, math.inf), (1.0, 0.0)])
def test_it_merges_the_cheapest_pair(decay: float, gap: float) -> None:
    signal = drift(40, patches=2)
    memory = add_all(AdaptiveMemory(12, fine_seconds=2.0, decay=decay, gap_seconds=gap), signal)
    got = memory.recover(0, 20)
    mine = zip(got.start_seconds.tolist(), got.end_seconds.tolist(), got.weight.tolist(), strict=True)
    assert sorted(mine) == naive(signal, 12, 2.0, decay, gap)


def test_twice_the_age_is_about_half_the_resolution() -> None:
    """A stream that drifts at one speed; the time that a token covers grows in proportion to its age."""
    lengths: dict[float, list[float]] = {8.0: [], 32.0: [], 128.0: []}
    for seed in range(2):
        memory = add_all(AdaptiveMemory(48, fine_seconds=4.0), drift(800, seed=seed))
        got = memory.recover(0, 400)
        duration, age = got.end_seconds - got.start_seconds, 400 - got.end_seconds
        for least in lengths:
            here = (age >= least) & (age < 2 * least)
            lengths[least] += duration[here].tolist()
    mean = {least: sum(found) / len(found) for least, found in lengths.items()}
    assert 2 < mean[32.0] / mean[8.0] < 8  # four times the age
    assert 2 < mean[128.0] / mean[32.0] < 8
    even = add_all(AdaptiveMemory(48, decay=0.0), drift(800)).recover(0, 400)
    aged = add_all(AdaptiveMemory(48, fine_seconds=4.0), drift(800)).recover(0, 400)
    assert int((aged.start_seconds >= 390).sum()) >= 3 * int((even.start_seconds >= 390).sum())


def represented(got: TokenSet, signal: Tensor) -> float:
    """Mean squared distance of every frame's tokens to the nearest kept one whose span holds it."""
    total = 0.0
    for t, frame in enumerate(signal):
        now = (got.start_seconds <= t * 0.5 + 0.25) & (got.end_seconds > t * 0.5 + 0.25)
        total += float(torch.cdist(frame, got.tokens[now]).min(dim=1).values.square().mean())
    return total / len(signal)


def test_merging_parts_is_nearly_as_good_as_one_pass() -> None:
    for seed in range(3):
        signal = drift(160, patches=3, seed=seed)
        options: dict[str, Any] = {"fine_seconds": 20.0}
        once = add_all(AdaptiveMemory(40, **options), signal).recover(0, 80)
        parts = [add_all(AdaptiveMemory(40, **options), signal[k : k + 40], start=k) for k in range(0, 160, 40)]
        for part in parts[1:]:
            parts[0].merge(part)
        merged = parts[0].recover(0, 80)
        assert len(merged) == 40
        assert merged.total_weight == pytest.approx(480, rel=1e-6)
        assert represented(merged, signal) < 1.25 * represented(once, signal)


def test_forgetting_clips_and_splits_what_crosses() -> None:
    one, two, three = random_signal(3, patches=1)
    memory = AdaptiveMemory(8)
    for frame, start, end in ((one, 0.0, 10.0), (two, 10.0, 20.0), (three, 20.0, 21.0)):
        memory.add(frame, start, end)
    gone = memory.forget(4, 6)  # within the first
    assert (gone.span, gone.total_weight) == ((4.0, 6.0), pytest.approx(0.2))
    got = memory.recover(0, 21)
    assert got.start_seconds.tolist() == [0.0, 6.0, 10.0, 20.0]
    assert got.end_seconds.tolist() == [4.0, 10.0, 20.0, 21.0]
    torch.testing.assert_close(got.weight, torch.tensor([0.4, 0.4, 1.0, 1.0]))
    torch.testing.assert_close(got.tokens[1], one[0])
    gone = memory.forget(9, 20.5)  # an end, a whole one, a start
    assert gone.start_seconds.tolist() == [9.0, 10.0, 20.0]
    got = memory.recover(0, 21)
    assert got.end_seconds.tolist() == [4.0, 9.0, 21.0]
    torch.testing.assert_close(got.weight, torch.tensor([0.4, 0.3, 0.5]))
    with pytest.raises(CompressionError, match=r"nothing of \[9\.5, 20\.0\) s is held"):
        memory.recover(9.5, 20.0)
    memory.forget(0, 21)
    assert len(memory) == 0
    with pytest.raises(CompressionError, match="nothing of"):
        memory.recover(0, 21)
    memory.add(one, 21, 22)
    assert memory.recover(0, 30).span == (21, 22)


@pytest.mark.parametrize("budget", [1, 2, 3, 5])
@pytest.mark.parametrize("gap", [0.0, math.inf])
def test_no_token_claims_the_forgotten_time(budget: int, gap: float) -> None:
    memory = add_all(AdaptiveMemory(budget, gap_seconds=gap), drift(40, patches=2))
    memory.forget(7.25, 7.5)
    assert 1 <= len(memory) <= budget
    got = memory.recover(0, 20)
    assert ((got.end_seconds <= 7.25) | (got.start_seconds >= 7.5)).all()


def test_the_budget_comes_before_the_gap() -> None:
    memory = AdaptiveMemory(3, gap_seconds=0.5)
    for t, frame in enumerate(random_signal(12, patches=1)):
        memory.add(frame, 100.0 * t, 100.0 * t + 1)
    assert len(memory) == 3
    assert memory.recover(0, 2000).total_weight == pytest.approx(12 * 1.0, rel=1e-6)


def test_patches_that_merge_with_others_are_nobodys() -> None:
    frames = [torch.eye(3)] * 4
    memory = AdaptiveMemory(3)
    for t, frame in enumerate(frames):
        memory.add(frame, t, t + 1)
    assert memory.recover(0, 4).patch.tolist() == [0, 1, 2]
    memory = AdaptiveMemory(1)
    memory.add(frames[0], 0, 1)
    assert memory.recover(0, 1).patch.tolist() == [-1]


def test_options_of_the_adaptive_memory_are_checked() -> None:
    for options, message in (
        ({"fine_seconds": 0}, "fine_seconds must be finite and above 0, got 0"),
        ({"fine_seconds": math.inf}, "got inf"),
        ({"decay": -1}, "decay must be finite and at least 0, got -1"),
        ({"gap_seconds": -0.5}, r"gap_seconds must be at least 0, got -0\.5"),
        ({"gap_seconds": math.nan}, "got nan"),
    ):
        with pytest.raises(CompressionError, match=message):
            AdaptiveMemory(4, **options)


def test_old_tokens_merge_across_longer_gaps() -> None:
    """Twice the same with 2 s between is one thing when it is old, and two when it is new."""
    same, one, two = random_signal(3, patches=1)
    for first, kept in ((0.0, [0.0, 100.0, 101.0]), (96.0, [96.0, 99.0, 100.0])):
        memory = AdaptiveMemory(3, gap_seconds=1.0)
        for frame, start in ((same, first), (same, first + 3), (one, 100.0), (two, 101.0)):
            memory.add(frame, start, start + 1)
        assert memory.recover(0, 200).start_seconds.tolist() == kept
