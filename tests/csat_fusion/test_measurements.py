from __future__ import annotations

import math

import pytest
import scipy.linalg
import scipy.stats
import torch

from csat_fusion.errors import CompressionError
from csat_fusion.measurements import random as random_measurements
from csat_fusion.measurements.base import make_measurement
from csat_fusion.measurements.hadamard import walsh_hadamard
from csat_fusion.measurements.learned import LearnedMeasurement, MatrixMeasurement
from csat_fusion.measurements.merging import MergingMeasurement, segment_assignment

RANDOM = ["gaussian", "rademacher", "hadamard", "sparse-sign"]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# random measurements


def test_entries_stay_as_they_are_from_one_version_and_machine_to_the_next() -> None:
    """A stored sketch is worth nothing once its matrix changes: to the last bit."""
    block = make_measurement("gaussian", 5, seed=42).block(10, 13)
    assert [value.hex() for value in block[:, 0].tolist()] == [
        "-0x1.3f4ee58e75ef2p-3",
        "0x1.3923597fd67e8p-2",
        "0x1.eda85fc8bfdafp-2",
        "0x1.1482b1526b4fap-1",
        "0x1.843f3883aab39p-2",
    ]
    far = make_measurement("gaussian", 5, seed=42).block(2**40, 2**40 + 1)
    assert far[0].item().hex() == "-0x1.d4689836b0379p-4"
    signs = {
        "rademacher": [[1, 1, 1], [1, -1, 1], [-1, -1, 1], [1, -1, 1], [-1, -1, 1]],
        "sparse-sign": [[1, -1, 1], [1, 1, -1], [-1, 1, 1], [1, 1, -1], [-1, 1, -1]],
        "hadamard": [[-1, -1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, 1, 1]],
    }
    for name, expected in signs.items():
        assert make_measurement(name, 5, 16, seed=42).block(10, 13).sign().tolist() == expected, name


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("kind", ["dense", "one entry", "constant"])
def test_lengths_are_kept_on_average_over_seeds(name: str, kind: str) -> None:
    x = {"dense": normal(100, 1), "one entry": torch.eye(100)[:, 37:38].double(), "constant": torch.ones(100, 1)}[kind]
    lengths = [make_measurement(name, 24, 100, seed=seed)(x.double()).square().sum() for seed in range(160)]
    ratio = torch.stack(lengths) / x.double().square().sum()
    error = float(ratio.std()) / math.sqrt(160)
    assert float(ratio.mean()) == pytest.approx(1.0, abs=4 * error + 1e-12)
    assert float(ratio.std()) < 2 * math.sqrt(2 / 24)


@pytest.mark.parametrize("name", RANDOM)
def test_rows_and_columns_are_uncorrelated(name: str) -> None:
    matrices = torch.stack([make_measurement(name, 6, 8, seed=seed).matrix() for seed in range(500)]).flatten(1)
    covariance = matrices.T @ matrices / 500 * 6
    expected = torch.eye(48, dtype=torch.float64)
    if name == "hadamard":  # entries of one row and column pair are tied; only those of one column's signs are free
        assert float(matrices.mean(dim=0).abs().max()) * math.sqrt(6) < 5 / math.sqrt(500)
        return
    assert float((covariance - expected).abs().max()) < 6 / math.sqrt(500)


@pytest.mark.parametrize("name", ["gaussian", "rademacher"])
def test_no_two_of_many_rows_are_alike(name: str) -> None:
    """Rows share hashes (64 signs, or a pair of normal numbers, from each) and are independent all the same."""
    matrix = make_measurement(name, 131, 3000).matrix() * math.sqrt(131 / 3000)
    assert float((matrix @ matrix.T - torch.eye(131, dtype=torch.float64)).abs().max()) < 6 * math.sqrt(2 / 3000)


def test_an_endless_measurement_needs_no_columns() -> None:
    for name in ("gaussian", "rademacher", "sparse-sign"):
        endless, bounded = make_measurement(name, 9, seed=1), make_measurement(name, 9, 50, seed=1)
        assert endless.endless
        tokens = normal(50, 3)
        assert torch.equal(endless(tokens), bounded(tokens))
        assert torch.equal(endless.block(3, 20), bounded.block(3, 20))
        assert endless.partial(tokens[:2], 2**50).shape == (9, 3)
        with pytest.raises(CompressionError, match="an endless measurement has no matrix"):
            endless.matrix()
        with pytest.raises(CompressionError, match="needs columns, the number of tokens"):
            endless.adjoint(normal(9, 3))
        with pytest.raises(CompressionError, match="there are 0, 1, 2, and so on"):
            endless.block(-1, 2)


def test_a_dense_random_matrix_is_never_whole_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_measurements, "_BLOCK_ENTRIES", {"cpu": 200})
    made: list[int] = []
    measurement = make_measurement("gaussian", 16, seed=2)
    entries = measurement._entries

    def watched(start: int, stop: int, device: torch.device) -> torch.Tensor:
        made.append((stop - start) * 16)
        return entries(start, stop, device)

    monkeypatch.setattr(measurement, "_entries", watched)
    tokens = normal(100, 3).requires_grad_()
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        measured = measurement(tokens)
    measured.square().sum().backward()
    assert made == [192] * 8 + [64] + [192] * 8 + [64]  # forward and backward
    assert all(tensor.numel() <= 300 for tensor in kept)
    matrix = make_measurement("gaussian", 16, 100, seed=2).matrix()
    torch.testing.assert_close(measured, matrix @ tokens)
    torch.testing.assert_close(tokens.grad, 2 * matrix.T @ (matrix @ tokens.detach()))


@pytest.mark.parametrize("name", ["gaussian", "rademacher", "sparse-sign"])
def test_many_blocks_of_half_precision_are_summed_in_float32(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16, 256 + 1 is 256."""
    monkeypatch.setattr(random_measurements, "_BLOCK_ENTRIES", {"cpu": 8})
    measurement, tokens = make_measurement(name, 4, 4000), (10 + normal(4000, 1)).bfloat16()
    exact = measurement.matrix() @ tokens.double()
    for got in (measurement(tokens), measurement.partial(tokens, 0)):
        assert float((got.double() - exact).abs().max()) <= 0.005 * float(exact.abs().max())


def test_sparse_sign_columns_have_their_entries_in_any_rows() -> None:
    measurement = make_measurement("sparse-sign", 5, 4000, nonzeros=2)
    matrix = measurement.matrix()
    assert bool(((matrix != 0).sum(dim=0) == 2).all())
    assert matrix.abs().unique().tolist() == [0, 1 / math.sqrt(2)]
    pairs = (matrix != 0).T.double() @ torch.tensor([1.0, 2, 4, 8, 16], dtype=torch.float64)
    counts = torch.unique(pairs, return_counts=True)[1].numpy()
    assert len(counts) == 10
    assert scipy.stats.chisquare(counts).pvalue > 0.01
    assert make_measurement("sparse-sign", 3, 9).nonzeros == 3
    for nonzeros in (0, 6, 1.0, True):
        with pytest.raises(CompressionError, match=f"nonzeros must be a whole number from 1 to 5.* got {nonzeros!r}"):
            make_measurement("sparse-sign", 5, nonzeros=nonzeros)


@pytest.mark.parametrize("length", [1, 2, 4, 8, 16, 32, 64, 128, 512])
def test_the_fast_hadamard_transform_is_the_matrix(length: int) -> None:
    tokens = normal(2, length, 3)
    expected = torch.from_numpy(scipy.linalg.hadamard(length)).double() @ tokens
    torch.testing.assert_close(walsh_hadamard(tokens), expected)


def test_the_hadamard_transform_takes_powers_of_two_only() -> None:
    for length in (0, 3, 12):
        with pytest.raises(CompressionError, match=f"a power of two of rows, got {length}"):
            walsh_hadamard(torch.zeros(length, 2))


def test_hadamard_rows_are_distinct_rows_of_the_transform_with_signs() -> None:
    measurement = make_measurement("hadamard", 11, 16, seed=4)
    matrix = measurement.matrix() * math.sqrt(11)
    signs = (matrix * matrix[:1])[1:]  # the signs of columns drop out; rows of H are closed under products
    rows = {tuple(row) for row in scipy.linalg.hadamard(16).tolist()}
    assert {tuple(int(v) for v in row) for row in signs.tolist()} <= rows
    assert len({tuple(row) for row in matrix.tolist()}) == 11
    whole = make_measurement("hadamard", 16, 16, seed=4).matrix()
    torch.testing.assert_close(whole.T @ whole, torch.eye(16, dtype=torch.float64))
    assert make_measurement("hadamard", 16, 9).matrix().shape == (16, 9)
    with pytest.raises(CompressionError, match="of 9 columns has at most 16 rows, got 17"):
        make_measurement("hadamard", 17, 9)


def test_hadamard_does_not_multiply_by_a_dense_matrix() -> None:
    """The multiplications that torch counts stay in proportion to ``N log N``."""
    from torch.utils.flop_counter import FlopCounterMode

    measurement = make_measurement("hadamard", 1024, 4096)
    with FlopCounterMode(display=False) as counter:
        measurement(torch.zeros(4096, 8))
    assert 0 < counter.get_total_flops() <= 4096 * 8 * 2 * 16 * 3
    assert counter.get_total_flops() < 2 * 1024 * 4096 * 8 / 20


# merging


def test_merging_gives_weighted_means_and_masses() -> None:
    tokens, weight = normal(2, 6, 3), torch.tensor([1.0, 2, 3, 4, 0, 5])
    measurement = MergingMeasurement(torch.tensor([0, 2, 0, -1, 2, 4]), weight)
    assert measurement.rows == 5
    assert measurement.weight.tolist() == [4, 0, 2, 0, 5]
    got = measurement(tokens)
    torch.testing.assert_close(got[:, 0], (tokens[:, 0] + 3 * tokens[:, 2]) / 4)
    assert torch.equal(got[:, [1, 3]], torch.zeros(2, 2, 3))
    assert torch.equal(got[:, [2, 4]], tokens[:, [1, 5]])
    attention = torch.tensor([[0.5, 0.0, 0.25, 0.0, 0.25]])
    spread = measurement.adjoint(attention.T).T
    torch.testing.assert_close(spread, torch.tensor([[0.125, 0.25, 0.375, 0.0, 0.0, 0.25]]))


def test_weights_of_ones_are_the_default_and_float32() -> None:
    assignment = torch.tensor([1, 1, 0, 1])
    plain = MergingMeasurement.from_assignment(assignment, rows=3)
    assert (plain.weight.dtype, plain.weight.tolist()) == (torch.float32, [1, 3, 0])
    assert torch.equal(plain.matrix(), MergingMeasurement(assignment, torch.ones(4), rows=3).matrix())
    half = MergingMeasurement(assignment, torch.ones(4, dtype=torch.float16))
    assert half.weight.dtype == torch.float32


@pytest.mark.parametrize("heads", [False, True])
def test_a_batch_of_assignments_is_each_by_itself(heads: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    assignment = torch.randint(-1, 4, (3, 10), generator=generator)
    weight = torch.rand(3, 10, generator=generator, dtype=torch.float64)
    tokens, measured = normal(3, 10, 2), normal(3, 5, 2)
    together = MergingMeasurement(assignment, weight, rows=5)
    assert together.weight.shape == (3, 5)
    if heads:  # one assignment for all heads
        together = MergingMeasurement(assignment[:, None], weight[:, None], rows=5)
        tokens, measured = tokens[:, None].expand(3, 7, 10, 2), measured[:, None].expand(3, 7, 5, 2)
    got, back, part = together(tokens), together.adjoint(measured), together.partial(tokens[..., 2:6, :], 2)
    for k in range(3):
        alone = MergingMeasurement(assignment[k], weight[k], rows=5)
        torch.testing.assert_close(got[k], alone(tokens[k]))
        torch.testing.assert_close(back[k], alone.adjoint(measured[k]))
        torch.testing.assert_close(part[k], alone.partial(tokens[k, ..., 2:6, :], 2))
        torch.testing.assert_close(together.matrix()[k].squeeze(), alone.matrix())
    one = MergingMeasurement(assignment, weight, rows=5)(tokens[0].reshape(-1, 10, 2)[0])  # one window, three ways
    assert one.shape == (3, 5, 2)


def test_gradients_reach_the_weights() -> None:
    assignment, tokens = torch.tensor([[0, 1, 1, 0, -1], [2, 2, 2, 0, 0]]), normal(2, 5, 3)
    weight = torch.tensor([[1.0, 2, 3, 4, 5], [0.5, 1, 1, 2, 0.1]], dtype=torch.float64, requires_grad=True)

    def merged(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        measurement = MergingMeasurement(assignment, weight, rows=4)
        return measurement(tokens), measurement.weight

    assert torch.autograd.gradcheck(merged, weight)


def test_merging_inside_a_module_is_exported_with_a_static_shape() -> None:
    class Merge(torch.nn.Module):
        def forward(self, tokens: torch.Tensor, assignment: torch.Tensor) -> torch.Tensor:
            return MergingMeasurement(assignment, rows=4)(tokens)

    tokens, assignment = normal(2, 10, 3), torch.arange(20).reshape(2, 10) % 4
    exported = torch.export.export(Merge(), (tokens, assignment)).module()
    other = (assignment + 1) % 3
    torch.testing.assert_close(exported(tokens, other), Merge()(tokens, other))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0, 1],), r"assignment must be an int64 tensor \[.., n\], got \[0, 1\]"),
        ((torch.tensor([0, 1], dtype=torch.int32),), r"got torch\.int32 \[2\]"),
        ((torch.tensor(3),), r"got torch\.int64 \[\]"),
        ((torch.zeros(2, 0, dtype=torch.int64),), r"at least one token, got \[2, 0\]"),
        ((torch.tensor([0, -2]),), "0 to 0, or -1 where left out, got -2"),
        ((torch.tensor([0, 3]), None, 3), "0 to 2, or -1 where left out, got 3"),
        ((torch.tensor([0, 1]), torch.ones(3)), r"weight must be \[2\] as assignment is, got \[3\]"),
        (
            (torch.tensor([0, 1]), torch.ones(2, dtype=torch.int64)),
            r"weight must be floating point on cpu, got torch\.i",
        ),
        ((torch.tensor([0, 1]), torch.tensor([1.0, -2.0])), r"finite and at least 0, got -2\.0"),
        ((torch.tensor([0, 1]), torch.tensor([1.0, math.nan])), "finite and at least 0, got nan"),
        ((torch.tensor([0, 1]), None, 0), "rows of a measurement must be a whole number, at least 1, got 0"),
    ],
)
def test_bad_assignments_are_refused(arguments: tuple, message: str) -> None:
    rows = arguments[2] if len(arguments) > 2 else None
    with pytest.raises(CompressionError, match=message):
        MergingMeasurement(*arguments[:2], rows=rows)


def test_segments_differ_in_length_by_one_at_most() -> None:
    for rows, columns in ((1, 1), (3, 3), (4, 30), (7, 30), (29, 30)):
        counts = torch.bincount(segment_assignment(rows, columns))
        assert len(counts) == rows
        assert int(counts.max() - counts.min()) <= 1
    assert segment_assignment(5, 2).tolist() == [0, 1]
    with pytest.raises(CompressionError, match=r"assignment must be \[.., 9\], got \[8\]"):
        make_measurement("merging", 3, 9, assignment=torch.zeros(8, dtype=torch.int64))


# learned


def test_a_learned_measurement_begins_where_it_was_told() -> None:
    for name in ("gaussian", "rademacher", "hadamard", "sparse-sign", "merging"):
        learned = LearnedMeasurement(4, 12, seed=9, init=name)
        torch.testing.assert_close(learned.matrix(), make_measurement(name, 4, 12, seed=9).matrix(), atol=1e-7, rtol=0)
    segments = LearnedMeasurement(4, 12, averaging=True).matrix()
    mine = (torch.arange(12) // 3 == torch.arange(4)[:, None]).double()
    torch.testing.assert_close(segments, 0.95 * mine / 3 + 0.05 / 12, atol=1e-6, rtol=0)
    own = normal(4, 12)
    torch.testing.assert_close(LearnedMeasurement(4, 12, init=own).matrix(), own, atol=1e-6, rtol=0)


@pytest.mark.parametrize("averaging", [False, True])
def test_a_learned_measurement_learns_and_stays_averaging(averaging: bool) -> None:
    tokens, goal = normal(12, 5).float(), normal(12, 5)[:4].float()  # four of the tokens
    measurement = LearnedMeasurement(4, 12, averaging=averaging)
    optimizer = torch.optim.Adam(measurement.parameters(), lr=0.1)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = (measurement(tokens) - goal).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.05 * losses[0]
    if averaging:
        matrix = measurement.matrix()
        assert bool((matrix >= 0).all())
        torch.testing.assert_close(matrix.sum(dim=1), torch.ones(4, dtype=torch.float64), atol=1e-6, rtol=0)


def test_averaging_in_half_precision_still_sums_to_one() -> None:
    measurement = LearnedMeasurement(4, 500, averaging=True).bfloat16()
    got = measurement(torch.ones(500, 2))
    torch.testing.assert_close(got, torch.ones(4, 2), rtol=1e-5, atol=0)


def test_bad_beginnings_are_refused() -> None:
    with pytest.raises(CompressionError, match=r"one of segments, gaussian.* merging, got 'haar'"):
        LearnedMeasurement(2, 4, init="haar")
    with pytest.raises(CompressionError, match=r"init must be \[2, 4\], got \[4, 2\]"):
        LearnedMeasurement(2, 4, init=torch.zeros(4, 2))
    with pytest.raises(CompressionError, match="not negative and not all zero; init 'gaussian' has others"):
        LearnedMeasurement(2, 4, init="gaussian", averaging=True)
    with pytest.raises(CompressionError, match="5 segments of 4 tokens would leave some empty"):
        LearnedMeasurement(5, 4, averaging=True)
    for matrix, message in (
        (torch.zeros(2, 0), r"\[2, 0\]"),
        (torch.zeros(2, 2, dtype=torch.int64), r"torch\.int64"),
        (torch.tensor([[1.0, math.inf]]), "finite, got inf"),
        (3, "got int"),
    ):
        with pytest.raises(CompressionError, match=message):
            MatrixMeasurement(matrix)  # type: ignore[arg-type]


def test_a_matrix_measures_as_the_measurement_it_was_written_down_from() -> None:
    gaussian = make_measurement("gaussian", 5, 20)
    written = MatrixMeasurement(gaussian.matrix())
    tokens = normal(3, 20, 2)
    torch.testing.assert_close(written(tokens), gaussian(tokens))
    torch.testing.assert_close(written.adjoint(written(tokens)), gaussian.adjoint(gaussian(tokens)))
    assert torch.equal(written.block(2, 9), gaussian.block(2, 9))
    assert not list(written.parameters())
