"""What every cross-attention promises. A new one is one line in the table ``ATTENTIONS`` and one in ``CASES``."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from csat_fusion.attention.base import ATTENTIONS, CrossAttention, make_attention
from csat_fusion.attention.maps import AttentionMap
from csat_fusion.errors import CompressionError

E, H, N = 16, 2, 12


@dataclass(frozen=True)
class Case:
    """``exact``: agrees with exact attention when m = n; ``pairs``: keeps to a mask of queries and tokens; ``means``:
    attention over the tokens is non-negative and sums to one; ``own``: keys of the state dict beside torch's own."""

    name: str
    exact: bool = True
    pairs: bool = True
    means: bool = True
    own: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def make(self, budget: int = N, tokens: int = N, **more: Any) -> CrossAttention:
        torch.manual_seed(5)
        return make_attention(self.name, E, H, budget=budget, tokens=tokens, **self.options, **more)


LISTA = ("denoiser.lista.encoder", "denoiser.lista.raw_threshold", "denoiser.lista.recurrence")
SEED = ("measurement_record",)
CASES = [
    Case("exact"),
    Case("linformer", exact=False, pairs=False, means=False, own=("mix_keys", "mix_values")),
    Case("performer", exact=False, pairs=False, own=("features",)),
    Case("nystrom", pairs=False, means=False, options={"iterations": 20}),
    Case("csat"),
    Case("csat", exact=False, own=LISTA, options={"denoiser": "lista"}),
    Case("csat-published", exact=False, pairs=False, means=False, own=SEED),
    Case("csat-published", exact=False, pairs=False, means=False, own=SEED + LISTA, options={"denoiser": "lista"}),
    Case("csat-feature", own=SEED),
    Case("csat-feature", exact=False, own=SEED + LISTA, options={"denoiser": "lista"}),
]
every = pytest.mark.parametrize("case", CASES, ids=lambda c: "-".join([c.name, *c.options]))
exact_ones = pytest.mark.parametrize("case", [c for c in CASES if c.exact], ids=lambda c: c.name)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def inputs(batch: int = 3, q: int = 5, n: int = N, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = (random(batch, count, E, seed=seed, dtype=dtype) for seed, count in enumerate((q, n, n)))
    return query, key, value


def multihead(like: CrossAttention, dtype: torch.dtype = torch.float32) -> nn.MultiheadAttention:
    """torch's own attention, with the same projections."""
    made = nn.MultiheadAttention(E, H, batch_first=True, dtype=dtype)
    made.load_state_dict({k: v for k, v in like.state_dict().items() if k in made.state_dict()})
    return made


def test_every_attention_of_the_table_is_tested() -> None:
    assert {case.name for case in CASES} == set(ATTENTIONS)


@every
@pytest.mark.parametrize("budget", [1, 4, N])
def test_shapes_and_maps(case: Case, budget: int) -> None:
    attention = case.make(budget)
    query, key, value = inputs()
    out, none = attention(query, key, value)
    assert out.shape == (3, 5, E)
    assert none is None
    start = torch.arange(float(N)).expand(3, N)
    for average in (True, False):
        spans = {"start_seconds": start, "end_seconds": start + 1}
        same, seen = attention(query, key, value, need_weights="map", average_attn_weights=average, **spans)
        torch.testing.assert_close(same, out, atol=1e-5, rtol=1e-4)
        assert isinstance(seen, AttentionMap)
        heads = () if average else (H,)
        assert seen.tokens.shape == (3, *heads, 5, N)
        assert seen.measurements.shape[:-1] == (3, *heads, 5)
        tokens = attention(query, key, value, need_weights=True, average_attn_weights=average)[1]
        torch.testing.assert_close(tokens, seen.tokens)
        if case.means:
            assert (seen.tokens >= 0).all()
            torch.testing.assert_close(seen.tokens.sum(-1), torch.ones(3, *heads, 5))
            torch.testing.assert_close(seen.over_time([0, 5, 20]).sum(-1), torch.ones(3, *heads, 5))
        torch.testing.assert_close(seen.over_time(range(N + 1)), seen.tokens)


@exact_ones
def test_with_m_equal_to_n_it_is_exact_attention_with_its_masks(case: Case) -> None:
    attention = case.make().double()
    query, key, value = inputs(q=N, dtype=torch.float64)
    torch_one = multihead(attention, torch.float64)
    padding = torch.zeros(3, N, dtype=torch.bool)
    padding[1, 7:] = True
    bias = random(N, N, seed=3, dtype=torch.float64)
    later = torch.ones(N, N, dtype=torch.bool).triu(1)
    calls: list[tuple[dict[str, Any], dict[str, Any]]] = [({}, {})]
    if case.pairs:
        calls += [
            ({"key_padding_mask": padding}, {}),
            ({"key_padding_mask": torch.zeros(3, N).double().masked_fill(padding, -math.inf)}, {}),
            ({"key_padding_mask": 200 * random(3, N, seed=6, dtype=torch.float64) + 900}, {}),
            ({"attn_mask": later}, {}),
            ({"attn_mask": bias}, {}),
            ({"attn_mask": random(3 * H, N, N, seed=4) > -0.5}, {}),
            ({"is_causal": True}, {"attn_mask": later}),
            ({"is_causal": True, "key_padding_mask": padding}, {"attn_mask": later, "key_padding_mask": padding}),
        ]
    for ours, theirs in calls:
        theirs = theirs or ours
        if "attn_mask" in ours and ours["attn_mask"].ndim == 3:
            ours["attn_mask"][..., 0] = False  # torch's own gives NaN where a query sees nothing
        for average in (True, False):
            got, got_seen = attention(query, key, value, need_weights=True, average_attn_weights=average, **ours)
            want, want_seen = torch_one(query, key, value, average_attn_weights=average, **theirs)
            close = {"atol": 1e-5, "rtol": 1e-5} if case.name == "nystrom" else {}
            torch.testing.assert_close(got, want, **close)
            torch.testing.assert_close(got_seen, want_seen, **close)
        torch.testing.assert_close(attention(query, key, value, **ours)[0], got)


@every
def test_padded_tokens_change_nothing(case: Case) -> None:
    query, key, value = inputs()
    padding = torch.zeros(3, N, dtype=torch.bool)
    padding[:, 8:] = True
    attention = case.make(8)
    got = attention(query, key, value, key_padding_mask=padding)[0]
    other_key, other_value = key.clone(), value.clone()
    other_key[:, 8:], other_value[:, 8:] = 7.0, -50.0
    if case.name == "nystrom":  # the runs of the landmarks are cut through all positions
        other_key[:, 8:] = key[:, 8:]
    torch.testing.assert_close(attention(query, other_key, other_value, key_padding_mask=padding)[0], got)
    assert torch.isfinite(got).all()
    weights = torch.arange(1.0, N + 1).expand(3, N)
    both = attention(query, key, value, padding, weights=weights)[0]
    torch.testing.assert_close(both, attention(query, key, value, weights=weights * ~padding)[0])


@every
def test_a_query_that_sees_nothing_gets_the_bias_of_the_output(case: Case) -> None:
    attention = case.make(4)
    query, key, value = inputs()
    with torch.no_grad():
        attention.out_proj.bias.fill_(0.25)
    padding = torch.zeros(3, N, dtype=torch.bool)
    padding[1] = True
    for need in (False, True):
        out, _ = attention(query.requires_grad_(), key, value, padding, need)
        torch.testing.assert_close(out[1], torch.full_like(out[1], 0.25))
        assert torch.isfinite(out).all()
    out.square().sum().backward()
    assert query.grad is not None
    assert torch.isfinite(query.grad).all()
    if case.pairs:
        blind = torch.zeros(5, N, dtype=torch.bool)
        blind[2] = True
        wide = case.make(N)
        with torch.no_grad():
            wide.out_proj.bias.fill_(0.25)
        out, seen = wide(query, key, value, attn_mask=blind, need_weights=True)
        torch.testing.assert_close(out[:, 2], torch.full((3, E), 0.25))
        assert (seen[:, 2] == 0).all()


@every
def test_masks_that_a_method_cannot_keep_are_refused(case: Case) -> None:
    query, key, value = inputs(q=N)
    attention = case.make(4)
    if not case.pairs:
        for mask in ({"attn_mask": torch.zeros(N, N)}, {"is_causal": True}):
            with pytest.raises(CompressionError, match="cannot keep to attn_mask or is_causal"):
                attention(query, key, value, **mask)
    elif attention.state_numbers(N) < 2 * N * E // H and case.name == "csat":
        with pytest.raises(CompressionError, match=r"attn_mask must be \[12, 12\]"):
            attention(query, key, value, attn_mask=torch.zeros(N, 4))  # rows of merged tokens are numbered by the data


@every
def test_gradients_agree_with_finite_differences(case: Case) -> None:
    attention = case.make(4, tokens=6).double()
    query, key, value = (t.requires_grad_() for t in inputs(1, 2, 6, torch.float64))
    assert torch.autograd.gradcheck(lambda *a: attention(*a)[0], (query, key, value), fast_mode=True)
    attention(query, key, value)[0].square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all()
    assert attention.in_proj_weight is not None
    assert (attention.in_proj_weight.grad.abs().sum(dim=1) > 0).float().mean() > 0.9  # type: ignore[union-attr]


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_are_near(case: Case, dtype: torch.dtype) -> None:
    attention = case.make(4)
    query, key, value = inputs(dtype=dtype)
    with torch.no_grad():
        want = attention(query.float(), key.float(), value.float())[0]
        with torch.autocast("cpu", dtype=dtype):
            cast = attention(query.float(), key.float(), value.float())[0]
        half = attention.to(dtype)(query, key, value, need_weights=True)
    assert half[0].dtype == half[1].dtype == dtype
    scale = float(want.abs().max())
    for got in (cast, half[0]):
        assert torch.isfinite(got).all()
        assert float((got.float() - want).abs().max()) < 0.06 * scale


@every
def test_export_gives_the_same_program(case: Case) -> None:
    attention = case.make(4).eval()
    query, key, value = inputs()
    start = torch.arange(float(N), dtype=torch.float64).expand(3, N).contiguous()

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, query: Tensor, key: Tensor, value: Tensor, padding: Tensor, start: Tensor) -> Tensor:
            out: Tensor = self.attention(query, key, value, padding, start_seconds=start, end_seconds=start + 1)[0]
            return out

    padding = torch.zeros(3, N, dtype=torch.bool)
    padding[0, 9:] = True
    shapes: tuple[Any, ...] | None = None
    more = 0
    if case.name == "csat" and not case.options:  # for all of them it takes long
        batch, queries = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("queries", min=2, max=64)
        shapes = ({0: batch, 1: queries}, {0: batch}, {0: batch}, {0: batch}, {0: batch})
        more = 2
    program = torch.export.export(Wrapped(), (query, key, value, padding, start), dynamic_shapes=shapes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    query, key, value = (t.flip(1) for t in inputs(batch=3 + more, q=5 + more))
    padding = torch.zeros(3 + more, N, dtype=torch.bool)
    padding[2, :4] = True
    start = torch.arange(float(N), dtype=torch.float64).expand(3 + more, N) * 2
    torch.testing.assert_close(loaded(query, key, value, padding, start), Wrapped()(query, key, value, padding, start))


@every
def test_state_dict_is_stable_and_fits(case: Case) -> None:
    attention = case.make(4)
    names = {"in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"}
    assert set(attention.state_dict()) == names | set(case.own)
    other = case.make(4, seed=9)
    query, key, value = inputs()
    assert not torch.allclose(other(query, key, value)[0], attention(query, key, value)[0])
    if "measurement_record" in case.own:
        with pytest.raises(CompressionError, match=r"seed=1\b.*; this one has .*seed=19\b"):
            other.load_state_dict(attention.state_dict())
        other = case.make(4)
        for parameter in other.parameters():
            nn.init.zeros_(parameter)
    other.load_state_dict(attention.state_dict())
    assert torch.equal(other(query, key, value)[0], attention(query, key, value)[0])


@every
def test_the_seed_decides_and_the_global_generator_is_left_alone(case: Case) -> None:
    before = torch.get_rng_state()
    made = make_attention(case.name, E, H, budget=4, tokens=N, seed=3, **case.options)
    query, key, value = inputs()
    first = made(query, key, value)[0]
    assert torch.equal(torch.get_rng_state(), before)
    again = make_attention(case.name, E, H, budget=4, tokens=N, seed=3, **case.options)
    assert torch.equal(again(query, key, value)[0], first)


@every
def test_tokens_that_are_held_are_read_as_ever(case: Case) -> None:
    """With padding and with weights, merged and not, also by one query after the other, unless landmarks are made of
    all of them; what is wrong is refused when they are held."""
    layer = case.make(8).eval()
    query, key, value = inputs()
    gone = torch.zeros(3, N, dtype=torch.bool)
    gone[1, N // 2 :] = True
    weights = random(3, N, seed=4).abs() + 0.5
    for padding, mass in ((None, None), (gone, None), (gone, weights)):
        wanted, _ = layer(query, key, value, padding, weights=mass)
        held = layer.hold(key, value, padding, weights=mass)
        torch.testing.assert_close(layer.read(query, held), wanted, rtol=1e-4, atol=1e-5)
        if case.name != "nystrom":
            found = torch.cat([layer.read(query[:, i : i + 1], held) for i in range(query.shape[1])], dim=1)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(CompressionError, match="weights must be"):
        layer.hold(key, value, weights=weights[:, 1:])
    with pytest.raises(CompressionError, match="expected query"):
        layer.hold(key[..., 1:], value)


@every
def test_weights_of_one_change_nothing(case: Case) -> None:
    query, key, value = inputs()
    attention = case.make(N)
    want = attention(query, key, value)[0]
    torch.testing.assert_close(attention(query, key, value, weights=torch.ones(3, N))[0], want, atol=1e-5, rtol=1e-4)


@every
def test_without_a_batch_and_other_widths(case: Case) -> None:
    attention = case.make(4, kdim=7, vdim=9)
    query, key, value = random(2, 5, E), random(2, N, 7, seed=1), random(2, N, 9, seed=2)
    want, seen = attention(query, key, value, need_weights=True)
    got, alone = attention(query[1], key[1], value[1], need_weights=True)
    torch.testing.assert_close(got, want[1])
    torch.testing.assert_close(alone, seen[1])
    none, seen = attention(query[:, :0], key, value, need_weights=True)
    assert none.shape == (2, 0, E)
    assert seen.shape == (2, 0, N)


@every
def test_dropout_only_in_training(case: Case) -> None:
    attention = case.make(4, dropout=0.5)
    query, key, value = inputs()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.allclose(attention(query, key, value)[0], attention(query, key, value)[0])
    attention.eval()
    assert torch.equal(attention(query, key, value)[0], attention(query, key, value)[0])
    assert torch.equal(attention(query, key, value)[0], case.make(4)(query, key, value)[0])


BAD_CALLS = {
    "another width": ({"query": torch.zeros(3, 5, E + 1)}, r"expected query \[B, q, 16\].*got query \[3, 5, 17\]"),
    "another batch": ({"key": torch.zeros(2, N, E)}, r"key \[2, 12, 16\]"),
    "values missing": ({"value": torch.zeros(3, N - 1, E)}, r"value \[3, 11, 16\]"),
    "no batch once": ({"query": torch.zeros(5, E)}, r"all with or all without B"),
    "nothing": ({"key": torch.zeros(3, 0, E), "value": torch.zeros(3, 0, E)}, "at least one token"),
    "whole numbers": ({"query": torch.zeros(3, 5, E, dtype=torch.int64)}, r"floating point, got torch\.int64"),
    "padding": ({"key_padding_mask": torch.zeros(3, N + 1, dtype=torch.bool)}, r"key_padding_mask must be \[3, 12\]"),
    "padding kind": ({"key_padding_mask": torch.zeros(3, N, dtype=torch.int64)}, r"bool or floating point"),
    "weights": ({"weights": torch.full((3, N), -1.0)}, r"at least 0, got -1\.0"),
    "weights NaN": ({"weights": torch.full((3, N), math.nan)}, "got nan"),
    "weights shape": ({"weights": torch.ones(3, 4)}, r"weights must be \[3, 12\]"),
    "spans": ({"start_seconds": torch.ones(3, 4)}, r"start_seconds must be \[3, 12\]"),
    "another type": ({"query": torch.zeros(3, 5, E).double()}, r"query is torch\.float64, the parameters .*float32"),
    "half": ({"value": torch.zeros(3, N, E).half()}, r"value is torch\.float16, the parameters are torch\.float32"),
    "another device": ({"key": torch.zeros(3, N, E, device="meta")}, "key is on meta, the parameters are on cpu"),
    "padding device": (
        {"key_padding_mask": torch.zeros(3, N, dtype=torch.bool, device="meta")},
        "key_padding_mask must be on cpu",
    ),
    "nested": (
        {"query": torch.nested.nested_tensor([torch.zeros(5, E)] * 3, layout=torch.jagged)},
        "no nested tensors; make nn.TransformerEncoder with enable_nested_tensor=False",
    ),
    "need": ({"need_weights": "maps"}, "True, False or 'map', got 'maps'"),
}


@every
@pytest.mark.parametrize("bad", BAD_CALLS)
def test_a_bad_call_is_refused(case: Case, bad: str) -> None:
    change, message = BAD_CALLS[bad]
    query, key, value = inputs()
    with pytest.raises(CompressionError, match=message):
        case.make(4)(**{"query": query, "key": key, "value": value, **change})


@every
def test_bad_options_are_named(case: Case) -> None:
    for options, message in (
        ({"dropot": 0.1}, r"no option 'dropot' \(did you mean 'dropout'\?\)"),
        ({"dropout": 1.0}, r"dropout must be at least 0 and below 1, got 1\.0"),
        ({"dropout": "0.1"}, r"dropout must be at least 0 and below 1, got '0\.1'"),
        ({"dropout": None}, r"dropout must be at least 0 and below 1, got None"),
        ({"seed": -1}, r"seed must be a whole number from 0 to 2\*\*63 - 1, got -1"),
        ({"seed": 1.5}, r"seed must be a whole number from 0 to 2\*\*63 - 1, got 1\.5"),
        ({"seed": None}, r"seed must be a whole number from 0 to 2\*\*63 - 1, got None"),
        ({"kdim": 0}, "kdim must be a whole number, at least 1, got 0"),
    ):
        with pytest.raises(CompressionError, match=message):
            case.make(4, **options)
    with pytest.raises(CompressionError, match="num_heads must divide embed_dim 16, got 3"):
        make_attention(case.name, E, 3, budget=4, tokens=N, **case.options)
    if case.name != "exact":
        for budget in (0, True, 2.5):
            with pytest.raises(CompressionError, match=f"got {budget!r}"):
                case.make(budget)  # type: ignore[arg-type]
        with pytest.raises(CompressionError, match=r"got None|not both"):
            case.make(None)  # type: ignore[arg-type]


@every
def test_the_largest_seed_will_do(case: Case) -> None:
    query, key, value = inputs()
    assert torch.isfinite(case.make(4, seed=2**63 - 1)(query, key, value)[0]).all()


@every
def test_an_empty_batch_gives_an_empty_result(case: Case) -> None:
    query, key, value = inputs(batch=0)
    attention = case.make(4)
    assert attention(query, key, value)[0].shape == (0, 5, E)
    out, seen = attention(query, key, value, need_weights=True)
    assert out.shape == (0, 5, E)
    assert seen.shape == (0, 5, N)


@every
def test_on_the_meta_device_shapes_are_found(case: Case) -> None:
    attention = case.make(4).to("meta")
    out, seen = attention(*(t.to("meta") for t in inputs()), need_weights=True)
    assert out.shape == (3, 5, E)
    assert seen.shape == (3, 5, N)
    assert out.is_meta


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_asked_for_weights_large_tokens_stay_finite(case: Case, dtype: torch.dtype) -> None:
    """The scores are beyond half precision: the fused kernel keeps them in float32, so must what writes them out."""
    query, key, value = (1000 * t for t in inputs(dtype=torch.float32))
    attention = case.make(4).to(dtype)
    cast = torch.autocast("cpu", dtype=torch.float16, enabled=dtype == torch.float32)
    with torch.no_grad(), cast:
        small, _ = attention(query.to(dtype), key.to(dtype), value.to(dtype))
        assert torch.isfinite(small).all()
        out, seen = attention(query.to(dtype), key.to(dtype), value.to(dtype), need_weights=True)
    assert torch.isfinite(out).all()
    assert torch.isfinite(seen).all()
    assert out.dtype == small.dtype
    assert float((out - small).abs().max()) < 0.02 * float(small.abs().max())


@every
def test_type_and_device_reach_all_that_is_made_by_name(case: Case) -> None:
    for options in ({"device": "meta"}, {"dtype": torch.float64}):
        attention = case.make(4, **options)
        for name, part in attention.state_dict().items():
            assert part.is_meta == ("device" in options), name
            if part.is_floating_point() and "dtype" in options:
                assert part.dtype == torch.float64, name


def test_an_unknown_name_gives_the_nearest_and_all() -> None:
    with pytest.raises(CompressionError, match=r"no attention 'linfomer' \(did you mean 'linformer'\?\); there are"):
        make_attention("linfomer", 8, 1)
