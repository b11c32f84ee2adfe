"""Compressed-sensing attention: what each reading computes, merging inside a call, maps over tokens and time."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from csat_fusion.attention.base import make_attention
from csat_fusion.attention.csat import csat_attention
from csat_fusion.attention.csat_module import CSATCrossAttention
from csat_fusion.attention.exact import ExactCrossAttention, exact_attention
from csat_fusion.attention.maps import AttentionMap
from csat_fusion.attention.merge import ward_rows
from csat_fusion.attention.weighted import weighted_attention
from csat_fusion.compressors.budget import Cosine, Ratio
from csat_fusion.errors import CompressionError
from csat_fusion.measurements.base import make_measurement
from csat_fusion.measurements.learned import MatrixMeasurement
from csat_fusion.measurements.merging import MergingMeasurement


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def scene(distinct: int, repeats: int, width: int = 16) -> tuple[Tensor, Tensor]:
    """``distinct`` tokens, each ``repeats`` times one after the other, and the spans' starts."""
    tokens = random(1, distinct, width, seed=4).repeat_interleave(repeats, dim=1)
    return tokens, torch.arange(float(distinct * repeats), dtype=torch.float64)[None]


# --- the function ---


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    groups=st.lists(st.integers(0, 5), min_size=1, max_size=20),
    heads=st.sampled_from([1, 2]),
    weighted=st.booleans(),
)
def test_merging_equal_tokens_changes_nothing(seed: int, groups: list[int], heads: int, weighted: bool) -> None:
    assignment = torch.tensor(groups)
    n, m = len(groups), max(groups) + 1
    key, value = random(2, m, 8, seed=seed)[:, assignment], random(2, m, 4, seed=seed + 1)[:, assignment]
    query = random(2, 3, 8, seed=seed + 2)
    weights = random(2, n, seed=seed + 3).abs() + 0.1 if weighted else None
    got = csat_attention(query, key, value, MergingMeasurement(assignment, rows=m), heads=heads, weights=weights)
    torch.testing.assert_close(got, exact_attention(query, key, value, heads=heads, weights=weights))


def test_merged_tokens_of_weights_are_attended_to_as_they_are() -> None:
    query, key, value, weight = random(2, 3, 8), random(2, 5, 8), random(2, 5, 8, seed=1), random(2, 5).abs()
    got = csat_attention(query, key, value, None, weights=weight, heads=2)
    torch.testing.assert_close(got, weighted_attention(query, key, value, weight, heads=2))


def test_one_assignment_a_window_and_weights_of_the_measurement() -> None:
    assignment = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    weight = torch.tensor([[1.0, 3.0, 2.0, 2.0], [5.0, 1.0, 0.0, 1.0]], dtype=torch.float64)
    query, key, value = random(2, 3, 4), random(2, 4, 4, seed=1), random(2, 4, 4, seed=2)
    got = csat_attention(query, key, value, MergingMeasurement(assignment, weight))
    for b in range(2):
        member = torch.stack([assignment[b] == i for i in range(2)]) * weight[b]  # [m, n]
        mass = member.sum(1)
        means = (member @ t[b] / mass[:, None] for t in (key, value))
        torch.testing.assert_close(got[b], weighted_attention(query[b], *means, mass))


def test_an_empty_row_and_a_token_left_out_are_masked() -> None:
    query, key, value = random(3, 4), random(4, 4, seed=1), random(4, 4, seed=2)
    got = csat_attention(query, key, value, MergingMeasurement(torch.tensor([2, 2, -1, 0]), rows=5))
    kept = torch.stack([key[3], key[:2].mean(0)]), torch.stack([value[3], value[:2].mean(0)])
    torch.testing.assert_close(got, weighted_attention(query, *kept, torch.tensor([1.0, 2.0])))


def test_the_published_reading_is_the_printed_softmax_over_mixed_keys() -> None:
    query, key, value = random(2, 3, 8), random(2, 10, 8, seed=1), random(2, 10, 8, seed=2)
    phi_k, phi_v = (make_measurement("gaussian", 4, 10, seed=s) for s in (1, 2))
    got = csat_attention(query, key, value, (phi_k, phi_v), reading="published")
    mixed = torch.softmax(query @ (phi_k.matrix() @ key).mT / math.sqrt(8), dim=-1) @ (phi_v.matrix() @ value)
    torch.testing.assert_close(got, mixed)
    one = csat_attention(query, key, value, phi_k, reading="published")
    torch.testing.assert_close(one, csat_attention(query, key, value, (phi_k, phi_k), reading="published"))
    masked = csat_attention(query, key, value, phi_k, reading="published", weights=torch.arange(10).clamp(max=1))
    key[:, 0] = value[:, 0] = 0
    torch.testing.assert_close(masked, csat_attention(query, key, value, phi_k, reading="published"))


def test_the_feature_reading_commutes_with_attention_and_recovers_what_it_measured() -> None:
    query, key, value = random(2, 3, 8), random(2, 10, 8, seed=1), random(2, 10, 8, seed=2)
    phi = make_measurement("gaussian", 5, 8, seed=3)
    matrix = phi.matrix()
    weights = torch.softmax(query @ matrix.T @ matrix @ key.mT / math.sqrt(8), dim=-1)
    measured = csat_attention(query, key, value, phi, reading="feature", denoiser=lambda c: c)
    torch.testing.assert_close(measured, weights @ value @ matrix.T)  # (A V) Phi^T = A (V Phi^T)
    got = csat_attention(query, key, value, phi, reading="feature")
    torch.testing.assert_close(got, weights @ value @ matrix.T @ torch.linalg.pinv(matrix).T)
    whole = csat_attention(query, key, value, make_measurement("hadamard", 8, 8), reading="feature")
    torch.testing.assert_close(whole, exact_attention(query, key, value))


@pytest.mark.parametrize("reading", ["merged", "published", "feature"])
def test_gradients_of_each_reading(reading: str) -> None:
    query, key, value = (random(1, n, 4, seed=n).requires_grad_() for n in (2, 6, 6))
    weights = (random(1, 6).abs() + 0.5).requires_grad_()
    if reading == "merged":
        phi = make_measurement("learned", 3, 6, averaging=True)
    else:
        phi = make_measurement("learned", 3, 6 if reading == "published" else 4)
    phi = phi.double()

    def run(*tensors: Tensor) -> Tensor:
        return csat_attention(*tensors[:3], phi, reading=reading, weights=tensors[3])  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(run, (query, key, value, weights))
    run(query, key, value, weights).square().sum().backward()
    (parameter,) = phi.parameters()
    assert parameter.grad is not None
    assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reading": "printed"}, "reading must be one of published, merged, feature, got 'printed'"),
        ({"measurement": make_measurement("gaussian", 2, 6)}, "rows are averages .* got GaussianMeasurement"),
        ({"measurement": None, "reading": "published"}, "published reading needs one measurement, got NoneType"),
        ({"measurement": make_measurement("hadamard", 2, 6), "reading": "feature"}, "over 6 features, a head has 4"),
        ({"measurement": MergingMeasurement(torch.zeros(5, dtype=torch.int64))}, "has 5 columns, got 6 tokens"),
        ({"weights": torch.zeros(6)}, "all weights of a row are 0"),
        ({"heads": 3}, "3 heads must divide"),
        ({"value": torch.zeros(5, 4)}, "same number of tokens"),
    ],
)
def test_bad_input_of_the_function_is_named(change: dict[str, object], message: str) -> None:
    merging = MergingMeasurement(torch.tensor([0, 0, 0, 1, 1, 1]))
    good: dict[str, object] = {"query": torch.zeros(2, 4), "key": torch.zeros(6, 4), "value": torch.zeros(6, 4)}
    good["measurement"] = merging
    csat_attention(**good)  # type: ignore[arg-type]
    with pytest.raises(CompressionError, match=message):
        csat_attention(**{**good, **change})  # type: ignore[arg-type]


# --- the module ---


def test_merging_inside_a_call_finds_equal_tokens_and_their_map_is_that_of_exact_attention() -> None:
    tokens, start = scene(6, 5)
    query = random(1, 4, 16, seed=9)
    exact = ExactCrossAttention(16, 2).double()
    merged = CSATCrossAttention(16, 2, budget=6).double()
    options = {"need_weights": "map", "average_attn_weights": False, "start_seconds": start, "end_seconds": start + 1}
    want, want_map = exact(query, tokens, tokens, **options)
    got, got_map = merged(query, tokens, tokens, **options)
    torch.testing.assert_close(got, want)
    assert got_map.measurements.shape == (1, 2, 4, 6)
    torch.testing.assert_close(got_map.tokens, want_map.tokens)
    torch.testing.assert_close(got_map.over_time([0, 5, 10, 30]), want_map.over_time([0, 5, 10, 30]))
    torch.testing.assert_close(got_map.tokens.sum(-1), torch.ones(1, 2, 4, dtype=torch.float64))


def test_values_follow_the_keys_that_decide() -> None:
    tokens, _ = scene(3, 4)
    value = random(1, 12, 16, seed=5)
    attention = CSATCrossAttention(16, 2, budget=3).double()
    query = random(1, 2, 16, seed=6)
    means = value.view(1, 3, 4, 16).mean(2)
    want = attention(query, tokens[:, ::4], means, weights=torch.full((1, 3), 4.0))[0]
    torch.testing.assert_close(attention(query, tokens, value)[0], want)


@pytest.mark.parametrize("reading", ["published", "feature"])
@pytest.mark.parametrize("denoiser", [None, "lista"])
def test_the_module_is_the_function_between_projections(reading: str, denoiser: str | None) -> None:
    attention = CSATCrossAttention(16, 2, budget=3, reading=reading, denoiser=denoiser).double()  # type: ignore[arg-type]
    assert attention.in_proj_weight is not None
    query, key, value = random(2, 3, 16), random(2, 9, 16, seed=1), random(2, 9, 16, seed=2)
    weights = random(2, 9, seed=3).abs() + 0.1
    rows = zip((query, key, value), attention.in_proj_weight.chunk(3), strict=True)
    projected = [tokens @ matrix.T for tokens, matrix in rows]
    phi: Any = attention.measurement
    if reading == "published":
        phi = (phi, attention.value_measurement)
        assert not torch.equal(phi[0].block(0, 9), phi[1].block(0, 9))
    want = csat_attention(*projected, phi, reading=reading, heads=2, weights=weights, denoiser=attention.denoiser)  # type: ignore[arg-type]
    got, seen = attention(query, key, value, weights=weights, need_weights=True)
    torch.testing.assert_close(got, want @ attention.out_proj.weight.T)
    assert seen.shape == (2, 3, 9)


@pytest.mark.parametrize("reading", ["merged", "published", "feature"])
def test_a_fused_kernel_serves_and_no_softmax_is_written_out(reading: str) -> None:
    class Operations(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.names: list[str] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.names.append(str(func))
            return func(*args, **(kwargs or {}))

    key = random(2, 9, 16).float()
    attention = CSATCrossAttention(16, 2, budget=4, reading=reading)  # type: ignore[arg-type]
    with Operations() as seen:
        attention(key[:, :3], key, key)
    assert any("scaled_dot_product_flash_attention" in name for name in seen.names)
    assert not any("softmax" in name for name in seen.names)


def test_tokens_with_weights_are_not_merged_again() -> None:
    query, key = random(1, 2, 16), random(1, 9, 16, seed=1)
    attention = CSATCrossAttention(16, 2, budget=3).double()
    weights = torch.arange(1.0, 10.0)[None]
    exact = ExactCrossAttention(16, 2).double()
    torch.testing.assert_close(attention(query, key, key, weights=weights), exact(query, key, key, weights=weights))


def test_a_gap_in_time_keeps_tokens_apart() -> None:
    tokens, start = scene(2, 6)
    tokens = torch.cat([tokens, tokens], dim=1)  # the same scene again, 100 s later
    start = torch.cat([start, start + 100], dim=1)
    times = {"start_seconds": start, "end_seconds": start + 1}
    anywhere = ward_rows(tokens, 2, **times)[0]
    assert torch.equal(anywhere[:12], anywhere[12:])
    near = ward_rows(tokens, 4, **times, gap_seconds=1.0)[0]
    assert set(near[:12].tolist()).isdisjoint(near[12:].tolist())
    query = random(1, 2, 16, seed=6)
    attention = CSATCrossAttention(16, 2, budget=4, gap_seconds=1.0).double()
    want = ExactCrossAttention(16, 2).double()(query, tokens, tokens)[0]
    torch.testing.assert_close(attention(query, tokens, tokens, **times)[0], want)
    with pytest.raises(CompressionError, match=r"gap_seconds=1\.0 needs start_seconds and end_seconds"):
        attention(query, tokens, tokens)


def test_the_merging_operation_is_one_for_torch() -> None:
    tokens, start = scene(3, 3)
    torch.library.opcheck(
        torch.ops.csat_fusion.ward_assignment.default,
        (tokens, 3, None, start, start + 1, 1.0, 0.1),
        test_utils=("test_schema", "test_faketensor"),
    )


def test_a_causal_query_sees_only_merged_tokens_that_had_ended() -> None:
    tokens, start = scene(6, 4)
    query, now = random(1, 4, 16, seed=3), torch.tensor([[0.5, 4.0, 11.9, 24.0]], dtype=torch.float64)
    attention = CSATCrossAttention(16, 2, budget=6).double()
    with torch.no_grad():
        attention.out_proj.bias.fill_(0.25)
    times = {"start_seconds": start, "end_seconds": start + 1, "query_seconds": now}
    tokens.requires_grad_()
    out, seen = attention(query, tokens, tokens, is_causal=True, need_weights=True, **times)
    torch.testing.assert_close(out[0, 0], torch.full((16,), 0.25, dtype=torch.float64))  # nothing had ended
    for i, visible in enumerate((0, 4, 8, 24)):  # tokens 8 to 11 are one that ends at 12
        assert (seen[0, i, :visible] > 0).all()
        assert (seen[0, i, visible:] == 0).all()
        (gradient,) = torch.autograd.grad(out[0, i].sum(), tokens, retain_graph=True)
        assert bool((gradient[0, visible:] == 0).all())
    merged = tokens[:, ::4]
    ends = {"weights": torch.full((1, 6), 4.0), "end_seconds": start[:, ::4] + 4, "query_seconds": now}
    torch.testing.assert_close(attention(query, merged, merged, is_causal=True, **ends)[0], out)


def test_causal_positions_stand_for_times() -> None:
    tokens, _ = scene(4, 3)
    attention = CSATCrossAttention(16, 2, budget=4).double()
    seen = attention(tokens, tokens, tokens, is_causal=True, need_weights=True)[1]
    assert isinstance(seen, Tensor)
    for i in range(12):
        ended = (i + 1) // 3 * 3
        assert (seen[0, i, :ended] > 0).all()
        assert (seen[0, i, ended:] == 0).all()
    padding = torch.zeros(1, 12, dtype=torch.bool)
    padding[0, 6:] = True
    padded = attention(tokens, tokens, tokens, padding, True, is_causal=True)[1]
    assert isinstance(padded, Tensor)
    assert (padded[0, 5:, :6] > 0).all()
    assert (padded[0, :, 6:] == 0).all()
    with pytest.raises(CompressionError, match="as many queries as tokens, got 5 queries and 12"):
        attention(tokens[:, :5], tokens, tokens, is_causal=True)
    with pytest.raises(CompressionError, match="query_seconds needs end_seconds"):
        attention(tokens, tokens, tokens, is_causal=True, query_seconds=torch.zeros(1, 12))
    with pytest.raises(CompressionError, match=r"query_seconds must be \[1, 12\]"):
        attention(
            tokens, tokens, tokens, is_causal=True, query_seconds=torch.zeros(1, 2), end_seconds=torch.ones(1, 12)
        )


def test_the_map_of_the_published_reading_goes_through_phi() -> None:
    attention = CSATCrossAttention(16, 2, budget=5, reading="published").double()
    query, key = random(2, 3, 16), random(2, 9, 16, seed=1)
    seen = attention(query, key, key, need_weights="map", average_attn_weights=False)[1]
    assert isinstance(seen, AttentionMap)
    assert attention.value_measurement is not None
    torch.testing.assert_close(seen.tokens, seen.measurements @ attention.value_measurement.block(0, 9))
    torch.testing.assert_close(seen.measurements.sum(-1), torch.ones(2, 2, 3, dtype=torch.float64))


def test_a_measurement_of_ones_own_and_a_denoiser_of_ones_own() -> None:
    query, key = random(2, 3, 16), random(2, 9, 16, seed=1)
    merging = MergingMeasurement(torch.arange(9) // 3)
    attention = CSATCrossAttention(16, 2, budget=3, measurement=merging).double()
    means = key.view(2, 3, 3, 16).mean(2)
    want = attention(query, means, means, weights=torch.full((2, 3), 3.0))[0]
    torch.testing.assert_close(attention(query, key, key)[0], want)
    with pytest.raises(CompressionError, match="is_causal needs tokens merged by time"):
        attention(key, key, key, is_causal=True)
    zero = CSATCrossAttention(16, 2, budget=3, denoiser=nn.Linear(8, 8, bias=False)).double()
    with torch.no_grad():
        zero.denoiser.weight.zero_()  # type: ignore[union-attr]
    assert bool((zero(query, key, key)[0] == 0).all())
    phi = MatrixMeasurement(torch.eye(8)[:4])
    wide = CSATCrossAttention(16, 2, budget=4, reading="feature", measurement=phi, denoiser=nn.Linear(4, 8)).double()
    assert wide(query, key, key)[0].shape == query.shape
    learned = make_attention("csat", 16, 2, budget=3, tokens=9, measurement="learned").double()
    learned(query, key, key)[0].square().sum().backward()
    assert learned.measurement.parameter.grad.abs().sum() > 0  # type: ignore[union-attr]
    torch.testing.assert_close(learned(query, key, key, need_weights=True)[1].sum(-1), torch.ones(2, 3).double())


def test_budgets_and_states() -> None:
    assert CSATCrossAttention(16, 2, budget=4).state_numbers(100) == 4 * 17
    assert CSATCrossAttention(16, 2, budget="1/10").rows(100) == 10
    assert CSATCrossAttention(16, 2, budget=40).rows(7) == 7
    assert CSATCrossAttention(16, 2, budget=4, reading="published").state_numbers(100) == 4 * 16
    for budget, tokens, features in ((4, None, 4), (Ratio(1 / 8), None, 1), (25, 100, 2), (1, 1000, 1), (300, 100, 8)):
        made = CSATCrossAttention(16, 2, budget=budget, reading="feature", tokens=tokens)
        assert made.state_numbers(100) == 200 * features
    for bad, message in (
        ({"budget": Cosine(0.9)}, "tokens or a ratio, got Cosine"),
        ({"budget": None}, "tokens or a ratio, got None"),
        ({"reading": "x"}, "reading must be one of"),
        ({"gap_seconds": -1}, "gap_seconds must be at least 0"),
        ({"gap_seconds": math.nan}, "gap_seconds must be at least 0"),
        ({"share": 0}, "share"),
        ({"denoiser": "ista"}, "None, 'lista' or a module, got 'ista'"),
        ({"measurement": "gaussian", "tokens": 9}, "rows are averages .* got GaussianMeasurement"),
        ({"measurement": make_measurement("gaussian", 4, 9)}, "rows are averages .* got GaussianMeasurement"),
        ({"gap_seconds": "1"}, "gap_seconds must be at least 0 .* got '1'"),
        ({"gap_seconds": None}, "gap_seconds must be at least 0 .* got None"),
        ({"reading": "published", "budget": "1/4"}, r"the ratio 0\.25 needs tokens"),
        ({"reading": "published", "measurement": "hadamar"}, "did you mean 'hadamard'"),
    ):
        options = {"budget": 4, **bad}
        with pytest.raises(CompressionError, match=message):
            CSATCrossAttention(16, 2, **options)  # type: ignore[arg-type]


def test_parameters_of_a_trained_attention_are_taken_over() -> None:
    query, key = random(2, 3, 16), random(2, 9, 16, seed=1)
    with torch.random.fork_rng():
        theirs = nn.MultiheadAttention(16, 2, batch_first=True, dtype=torch.float64).eval()
        bad = [
            nn.MultiheadAttention(16, 2, batch_first=True, add_bias_kv=True),
            nn.MultiheadAttention(16, 2, batch_first=True, add_zero_attn=True),
            nn.MultiheadAttention(16, 2),
        ]
    for cls, options in ((ExactCrossAttention, {}), (CSATCrossAttention, {"budget": 9})):
        ours = cls.from_multihead(theirs, **options)
        assert not ours.training
        torch.testing.assert_close(ours(query, key, key)[0], theirs(query, key, key)[0])
    for attention, what in zip(bad, ("add_bias_kv", "add_zero_attn", "batch_first=False"), strict=True):
        with pytest.raises(CompressionError, match=f"an attention with {what} cannot"):
            ExactCrossAttention.from_multihead(attention)


def test_attention_over_time_needs_spans_and_rising_edges() -> None:
    tokens = torch.tensor([[[0.25, 0.75]]])
    start, end = torch.tensor([[0.0, 2.0]]), torch.tensor([[4.0, 3.0]])
    seen = AttentionMap(tokens, tokens, start, end)
    torch.testing.assert_close(seen.over_time([0, 2, 3, 3.5]), torch.tensor([[[0.125, 0.8125, 0.03125]]]))
    for edges in ([1.0], [0.0, 0.0], [0.0, math.nan], [2.0, 1.0]):
        with pytest.raises(CompressionError, match="at least two rising finite numbers"):
            seen.over_time(edges)
    with pytest.raises(CompressionError, match="needs start_seconds and end_seconds"):
        AttentionMap(tokens, tokens).over_time([0, 1])
    for wrong in (end, end + 1, torch.full_like(end, math.nan)):
        with pytest.raises(CompressionError, match=r"must end after it starts, got the span \[(\d\.0|nan), \d\.0\)"):
            AttentionMap(tokens, tokens, wrong, end).over_time([0, 1])
