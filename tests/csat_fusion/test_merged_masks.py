"""Masks over the tokens of a call that merges them, causal order after merging, and what a state dict pins."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from csat_fusion.attention.csat_module import CSATCrossAttention
from csat_fusion.attention.exact import ExactCrossAttention
from csat_fusion.attention.linformer import rows_kept
from csat_fusion.attention.merge import merge_bias
from csat_fusion.compressors.budget import Ratio
from csat_fusion.errors import CompressionError
from csat_fusion.measurements.base import Measurement, make_measurement
from csat_fusion.measurements.learned import MatrixMeasurement
from csat_fusion.measurements.merging import MergingMeasurement


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


DISTINCT, REPEATS, N = 5, 4, 20
KEY = random(2, DISTINCT, 16, seed=4).repeat_interleave(REPEATS, dim=1)
QUERY = random(2, 3, 16, seed=9)


def merged(**options: Any) -> CSATCrossAttention:
    return CSATCrossAttention(16, 2, budget=DISTINCT, **options).double()


def by_runs() -> CSATCrossAttention:
    return merged(measurement=MergingMeasurement(torch.arange(N) // REPEATS))


EXACT = ExactCrossAttention(16, 2).double()
both = pytest.mark.parametrize("make", [merged, by_runs], ids=["inside the call", "by a measurement"])


@both
@pytest.mark.parametrize("heads", [1, 4])
def test_over_equal_tokens_a_mask_does_what_it_does_unmerged(make: Any, heads: int) -> None:
    shape = (3, N) if heads == 1 else (heads, 3, N)
    bias = 3 * random(*shape, seed=5)
    close: dict[str, Any] = {"atol": 1e-9, "rtol": 1e-9}
    got, seen = make()(QUERY, KEY, KEY, attn_mask=bias, need_weights=True)
    torch.testing.assert_close(got, EXACT(QUERY, KEY, KEY, attn_mask=bias)[0], **close)
    assert seen.shape == (2, 3, N)
    blocked = random(*shape[:-1], DISTINCT, seed=6).repeat_interleave(REPEATS, dim=-1) > 0.3
    blocked[..., :REPEATS] = False
    want, map_wanted = EXACT(QUERY, KEY, KEY, attn_mask=blocked, need_weights=True)
    for mask in (blocked, torch.zeros(shape).masked_fill(blocked, -math.inf)):
        got, seen = make()(QUERY, KEY, KEY, attn_mask=mask, need_weights=True)
        torch.testing.assert_close(got, want, **close)
        torch.testing.assert_close(seen, map_wanted, **close)
    padding = torch.zeros(2, N, dtype=torch.bool)
    padding[0, 1:3] = True
    padding[1, 12:] = True
    want = EXACT(QUERY, KEY, KEY, padding, attn_mask=bias)[0]
    torch.testing.assert_close(make()(QUERY, KEY, KEY, padding, attn_mask=bias)[0], want, **close)


@both
def test_a_row_is_blocked_where_one_of_its_members_is(make: Any) -> None:
    mask = torch.zeros(3, N, dtype=torch.bool)
    mask[0, 5] = mask[1, ::REPEATS] = True
    whole = torch.zeros(3, N, dtype=torch.bool)
    whole[0, 4:8] = whole[1] = True
    attention = make()
    with torch.no_grad():
        attention.out_proj.bias.fill_(0.25)
    key = KEY.clone().requires_grad_()
    for given in (mask, torch.zeros(3, N).masked_fill(mask, -math.inf)):
        out, seen = attention(QUERY, key, key, attn_mask=given, need_weights=True)
        torch.testing.assert_close(out, attention(QUERY, KEY, KEY, attn_mask=whole)[0])
        assert (seen[:, 0, 4:8] == 0).all()
        torch.testing.assert_close(out[:, 1], torch.full((2, 16), 0.25).double())
        (gradient,) = torch.autograd.grad(out[:, 0].sum(), key)
        assert not gradient[:, 4:8].any()
        assert gradient[:, 8:].any()
    padding = torch.zeros(2, N, dtype=torch.bool)
    padding[:, 5] = True  # what is padded blocks nothing
    got = attention(QUERY, KEY, KEY, padding, attn_mask=mask)[0][:, 0]
    torch.testing.assert_close(got, attention(QUERY, KEY, KEY, padding)[0][:, 0])


def test_a_mask_goes_with_its_tokens_in_any_order() -> None:
    key = random(2, N, 16, seed=1)
    bias = random(3, N, seed=5).masked_fill(random(3, N, seed=6) > 1.5, -math.inf)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    attention = merged()
    want, map_wanted = attention(QUERY, key, key, attn_mask=bias, need_weights=True)
    got, seen = attention(QUERY, key[:, order], key[:, order], attn_mask=bias[:, order], need_weights=True)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(seen, map_wanted[..., order])
    assert not torch.allclose(attention(QUERY, key, key)[0], want)


def test_very_low_masks_and_their_gradients() -> None:
    rows, share = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0.25, 0.75, 1.0, 0.0]])
    bias = torch.tensor([[-1e9, -1e9, 80.0, 500.0], [0.0, -1e9, -200.0, -math.inf]]).view(1, 1, 2, 4).requires_grad_()
    got = merge_bias(bias, rows, share, 3)
    want = torch.tensor([[-1e9, 80.0, -math.inf], [math.log(0.25), -200.0, -math.inf]]).view(1, 1, 2, 3)
    torch.testing.assert_close(got, want)
    got[..., :2].sum().backward()
    torch.testing.assert_close(bias.grad, torch.tensor([[[[0.25, 0.75, 1, 0], [1, 0, 1, 0]]]]))
    half = CSATCrossAttention(16, 2, budget=DISTINCT).half()
    out = half(QUERY.half(), KEY.half(), KEY.half(), attn_mask=torch.zeros(3, N).half())[0]
    torch.testing.assert_close(out, half(QUERY.half(), KEY.half(), KEY.half())[0], atol=2e-3, rtol=2e-2)


def test_rows_numbered_by_the_data_take_no_mask_and_mixtures_take_none_at_all() -> None:
    with pytest.raises(CompressionError, match=r"attn_mask must be \[3, 20\] or \[4, 3, 20\].*got \[3, 5\]"):
        merged()(QUERY, KEY, KEY, attn_mask=torch.zeros(3, DISTINCT))
    learned = merged(measurement="learned", tokens=N)
    with pytest.raises(CompressionError, match="mixes the tokens, so it cannot keep to attn_mask"):
        learned(QUERY, KEY, KEY, attn_mask=torch.zeros(3, N))
    weights = torch.ones(2, N)  # not merged again: the tokens given are the rows
    mask = random(3, N, seed=7) > 0
    got = merged()(QUERY, KEY, KEY, weights=weights, attn_mask=mask)[0]
    torch.testing.assert_close(got, EXACT(QUERY, KEY, KEY, attn_mask=mask)[0])
    with pytest.raises(CompressionError, match="attn_mask must be on cpu as the query is, got meta"):
        merged()(QUERY, KEY, KEY, attn_mask=torch.zeros(3, N, device="meta"))


def test_merging_in_the_layer_blinds_causal_queries_as_its_docstring_says() -> None:
    tokens = torch.randn(1, 40, 16, generator=torch.Generator().manual_seed(2))
    attention = CSATCrossAttention(16, 2, budget=8)
    seen = attention(tokens, tokens, tokens, is_causal=True, need_weights=True)[1]
    assert isinstance(seen, Tensor)
    assert int((seen.sum(-1) == 0).sum()) == 23
    assert "of 40 random tokens" in (CSATCrossAttention.__doc__ or "")
    assert "merged to 8, 23 see nothing" in (CSATCrossAttention.__doc__ or "")
    later = torch.ones(40, 40, dtype=torch.bool).triu(1)  # the same by a mask, as torch's layers give it
    masked = attention(tokens, tokens, tokens, attn_mask=later, need_weights=True)[1]
    torch.testing.assert_close(masked, seen)


def test_the_map_of_a_mixture_is_over_the_tokens() -> None:
    attention = merged(measurement="learned", tokens=N)
    phi = attention.measurement
    assert phi is not None
    weight = random(2, N, seed=3).abs()
    weight[:, 2] = 0
    rows = phi.matrix() * weight[:, None]  # [B, m, n]
    rows = rows / rows.sum(-1, keepdim=True)
    padding = weight.log()
    for average in (True, False):
        seen = attention(QUERY, KEY, KEY, padding, "map", average_attn_weights=average)[1]
        want = seen.measurements @ (rows if average else rows[:, None])
        torch.testing.assert_close(seen.tokens, want, atol=1e-6, rtol=1e-6)
        alone = attention(QUERY, KEY, KEY, None, "map", average_attn_weights=average)[1]
        torch.testing.assert_close(alone.tokens, alone.measurements @ phi.matrix(), atol=1e-6, rtol=1e-6)


# --- what a state dict pins ---


def test_a_state_is_that_of_one_measurement() -> None:
    def made(
        measurement: Measurement | str | None, budget: int = 4, tokens: int | None = 9, **options: Any
    ) -> nn.Module:
        return CSATCrossAttention(
            16, 2, budget=budget, reading="published", tokens=tokens, measurement=measurement, **options
        )

    state = made("gaussian").state_dict()
    made("gaussian").load_state_dict(state)
    holder = nn.ModuleDict({"inner": made("gaussian")})
    nn.ModuleDict({"inner": made("gaussian")}).load_state_dict(holder.state_dict())
    others = {
        "Rademacher.* this one has|Gaussian.*this one has Rademacher": made("rademacher"),
        "rows=4 .*this one has .*rows=5 ": made("gaussian", budget=5),
        "columns=9 .*this one has .*columns=8 ": made("gaussian", tokens=8),
        r"seed=1\b.*this one has .*seed=3\b": made("gaussian", seed=1),
        r"seed=2; this one has .*seed=1, .*seed=1$": made(make_measurement("gaussian", 4, 9, seed=1)),
        "this one has MatrixMeasurement rows=4": made(MatrixMeasurement(torch.ones(4, 9))),
    }
    for message, other in others.items():
        with pytest.raises(CompressionError, match=message):
            other.load_state_dict(state, strict=False)
    few, many = (make_measurement("sparse-sign", 4, 9, nonzeros=k) for k in (1, 2))
    with pytest.raises(CompressionError, match=r"nonzeros=1.*this one has .*nonzeros=2"):
        made(many).load_state_dict(made(few).state_dict())
    theirs = nn.MultiheadAttention(16, 2, batch_first=True, device="meta")
    with torch.random.fork_rng():
        names = made("gaussian").load_state_dict(theirs.to_empty(device="cpu").state_dict(), strict=False)
    assert names.missing_keys == ["measurement_record"]
    merging = CSATCrossAttention(16, 2, budget=4)  # no measurement: the state of torch's own attention fits, strictly
    merging.load_state_dict(ExactCrossAttention(16, 2).state_dict())


def test_type_and_device_reach_a_measurement_made_by_name() -> None:
    options: dict[str, Any] = {"budget": 3, "tokens": 9, "measurement": "learned"}
    assert CSATCrossAttention(16, 2, **options, dtype=torch.float64).measurement.parameter.dtype == torch.float64  # type: ignore[union-attr]
    for reading in ("published", "merged"):
        attention = CSATCrossAttention(16, 2, **options, reading=reading, device="meta")  # type: ignore[arg-type]
        assert all(part.is_meta for part in attention.state_dict().values())


# --- a ratio of a number of tokens that is a symbol ---


@pytest.mark.parametrize("batch", [1, 2])
def test_export_with_a_ratio_takes_any_number_of_tokens(batch: int) -> None:
    attention = CSATCrossAttention(16, 2, budget="1/4").eval()

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, query: Tensor, key: Tensor) -> Tensor:
            out: Tensor = self.attention(query, key, key)[0]
            return out

    query, key = QUERY[:batch].float(), KEY[:batch].float()
    count = torch.export.Dim("n", min=5, max=4096)  # m at least 2, as torch sees a size of 1 apart
    program = torch.export.export(Wrapped(), (query, key), dynamic_shapes=({}, {1: count}))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for n in (5, 20, 37, 160):
        tokens = random(batch, n, 16, seed=n).float()
        torch.testing.assert_close(loaded(query, tokens), Wrapped()(query, tokens))


def test_a_symbol_is_rounded_as_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = [1 / 16, 0.1, 1 / 3, 0.9, 1.0, 2 / 7, 0.123456789, 1e-4, 1e-13]
    numbers = [*range(1, 400), 1000, 4096, 10**5, 10**6]
    want = [[Ratio(share).limit(n) for n in numbers] for share in shares]
    monkeypatch.setattr("csat_fusion.attention.linformer.is_symbol", lambda n: True)
    assert [[rows_kept(Ratio(share), n) for n in numbers] for share in shares] == want
