"""CoCa's decoder over token sets: the original where nothing is compressed; true to weights, batches, gradients."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from csat_fusion.attention.base import ATTENTIONS
from csat_fusion.errors import CompressionError
from csat_fusion.tokens import TokenSet
from encoders.errors import CaptionerUnavailable, EncoderInputError
from encoders.openclip.decoder import CocaDecoder
from encoders.openclip.visual import VisualTokens, padded
from tests.encoders.cocas import CONTEXT, END, START, WIDTH, small_coca, text_ids, token_set


@pytest.fixture(scope="module")
def original() -> nn.Module:
    return small_coca()


@pytest.fixture
def model(original: nn.Module) -> nn.Module:
    return copy.deepcopy(original)


def raw(count: int, batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, count, WIDTH, generator=torch.Generator().manual_seed(seed))


def close(a: Tensor, b: Tensor, atol: float = 2e-5) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


# -- the original ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [None, 1.0, 7.0])
def test_up_to_the_budget_it_is_open_clips_own(original: nn.Module, model: nn.Module, weight: float | None) -> None:
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    text = text_ids(2, CONTEXT)
    with torch.no_grad():
        wanted = original(pixels, text)
        tokens = original._encode_image(pixels)[1]  # type: ignore[operator]
        weights = None if weight is None else torch.full(tokens.shape[:2], weight)
        decoder = CocaDecoder(model, budget=tokens.shape[1])
        close(decoder.logits(VisualTokens(tokens, weights), text)[:, :-1], wanted["logits"])
        # and the model as a whole is still usable
        close(model(pixels, text)["logits"], wanted["logits"])


def test_the_state_dict_is_the_models(original: nn.Module, model: nn.Module) -> None:
    CocaDecoder(model)
    before, after = original.state_dict(), model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    small_coca(seed=3).load_state_dict(after)


def test_it_can_be_wrapped_again_with_another_attention(model: nn.Module) -> None:
    tokens, text = VisualTokens(raw(7)), text_ids(2, 5)
    with torch.no_grad():
        wanted = CocaDecoder(model, attention="exact").logits(tokens, text)
        for name in ("linformer", "csat"):
            again = CocaDecoder(model, attention=name, budget=7, tokens=7)
        close(again.logits(tokens, text), wanted)


def test_a_frozen_model_stays_frozen(model: nn.Module) -> None:
    assert not any(p.requires_grad for p in CocaDecoder(model).parameters())


def test_a_model_without_a_decoder_is_refused() -> None:
    with pytest.raises(CaptionerUnavailable, match="Linear has no caption decoder"):
        CocaDecoder(nn.Linear(2, 2))


def test_an_unknown_attention_is_refused(model: nn.Module) -> None:
    with pytest.raises(CompressionError, match="no attention 'cast'"):
        CocaDecoder(model, attention="cast")


# -- weights and merging -----------------------------------------------------------------------------------------------


def test_a_weight_counts_as_that_many_tokens(model: nn.Module) -> None:
    tokens, text = raw(5), text_ids(2, 6)
    weights = torch.tensor([[1.0, 4, 2, 1, 3], [2, 2, 1, 5, 1]])
    repeated = [row.repeat_interleave(w.long(), dim=0)[None] for row, w in zip(tokens, weights, strict=True)]
    with torch.no_grad():
        decoder = CocaDecoder(model)
        got = decoder.logits(VisualTokens(tokens, weights), text)
        for i, each in enumerate(repeated):
            close(got[i : i + 1], decoder.logits(VisualTokens(each), text[i : i + 1]))


def test_raw_tokens_beyond_the_budget_are_merged_once_and_keep_their_times(model: nn.Module) -> None:
    """Four kinds of tokens, each at its own time: the budget of four finds them, and says how many and when."""
    kinds = raw(4, batch=1)[0]
    which = torch.tensor([0, 1, 2, 3] * 4)
    start = which.double() + torch.arange(16).double() / 100
    visual = VisualTokens(
        kinds[which][None],
        start_seconds=start[None],
        end_seconds=start[None] + 1,
        span=torch.tensor([[0.0, 5.0]], dtype=torch.float64),
    )
    decoder = CocaDecoder(model, budget=4)
    merged = decoder.prepared(replace(visual, span=None))
    assert merged.weights is not None
    assert merged.start_seconds is not None
    assert merged.end_seconds is not None
    assert merged.weights.tolist() == [[4.0] * 4]
    order = merged.start_seconds[0].argsort()
    close(merged.tokens[0, order], kinds)
    assert merged.start_seconds[0, order].tolist() == pytest.approx([0.0, 1.01, 2.02, 3.03])
    assert merged.end_seconds[0, order].tolist() == pytest.approx([1.12, 2.13, 3.14, 4.15])
    # duplicates cost nothing, so that the words are those of all sixteen
    with torch.no_grad():
        text = text_ids(1, 5)
        still = replace(visual, span=None)
        close(decoder.logits(still, text), CocaDecoder(model, attention="exact").logits(still, text))
        assert not torch.allclose(decoder.logits(visual, text), decoder.logits(still, text), atol=1e-3)


def test_weighted_tokens_are_attended_to_as_they_are(model: nn.Module) -> None:
    sets = [token_set(9)]
    with torch.no_grad():
        wanted = CocaDecoder(model, budget=100).logits(sets, text_ids(1, 4))
        close(CocaDecoder(model, budget=2).logits(sets, text_ids(1, 4)), wanted)


@pytest.mark.parametrize("weighted", [True, False], ids=["token sets", "raw"])
@pytest.mark.parametrize("budget", [4, "1/2"])
def test_a_window_does_not_depend_on_those_beside_it(model: nn.Module, budget: int | str, weighted: bool) -> None:
    sets = [token_set(count, seed=count) for count in (3, 11, 6)]
    spans = [(0.0, 8.0), None, (0.0, 9.0)]
    text = text_ids(3, 6)
    decoder = CocaDecoder(model, budget=budget)

    def read(some: list[TokenSet], within: list[tuple[float, float] | None], ids: Tensor) -> Tensor:
        visual = padded(some, within)
        return decoder.logits(visual if weighted else replace(visual, weights=None), ids)

    with torch.no_grad():
        together = read(sets, spans, text)
        for i in range(3):
            close(together[i : i + 1], read([sets[i]], [spans[i]], text[i : i + 1]))


def test_padding_is_not_attended_to_by_an_attention_that_merges_nothing(model: nn.Module) -> None:
    sets, text = [token_set(3), token_set(8)], text_ids(2, 4)
    decoder = CocaDecoder(model, attention="exact")
    with torch.no_grad():
        together = decoder.logits(replace(padded(sets), weights=None), text)
        alone = decoder.logits(replace(padded(sets[:1]), weights=None), text[:1])
    close(together[:1], alone)


# -- training ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ATTENTIONS)
def test_every_attention_reads_and_passes_gradients(model: nn.Module, name: str) -> None:
    decoder = CocaDecoder(model.requires_grad_(True), attention=name, budget=4, tokens=12)
    tokens = raw(12).requires_grad_()
    out = decoder.logits(VisualTokens(tokens), text_ids(2, 5))
    assert out.shape == (2, 5, 24)
    assert bool(torch.isfinite(out).all())
    out.square().mean().backward()
    assert tokens.grad is not None
    assert float(tokens.grad.abs().max()) > 0
    for block in decoder.model.text_decoder.cross_attn:
        for key, parameter in block.attn.named_parameters():
            assert parameter.grad is not None, key
            assert float(parameter.grad.abs().max()) > 0, key


def test_lista_is_an_option(model: nn.Module) -> None:
    decoder = CocaDecoder(model.requires_grad_(True), budget=4, denoiser="lista")
    decoder.logits(VisualTokens(raw(12)), text_ids(2, 5)).sum().backward()
    learnt = [p.grad for n, p in decoder.named_parameters() if "denoiser" in n]
    assert learnt
    assert all(grad is not None for grad in learnt)


def test_layers_differ_in_what_is_random(model: nn.Module) -> None:
    decoder = CocaDecoder(model, attention="linformer", budget=4, tokens=12, seed=5)
    first, second = (block.attn.mix_keys for block in decoder.model.text_decoder.cross_attn)
    assert not torch.equal(first, second)


def test_checkpointing_gives_the_same_gradients(model: nn.Module) -> None:
    decoder = CocaDecoder(model.requires_grad_(True))
    grads = []
    for again in (False, True):
        model.text_decoder.set_grad_checkpointing(again)  # type: ignore[union-attr, operator]
        tokens = raw(6).requires_grad_()
        decoder.logits(VisualTokens(tokens), text_ids(2, 5)).square().sum().backward()
        grads.append(tokens.grad)
    torch.testing.assert_close(*grads)


def test_the_global_random_state_is_left_alone(model: nn.Module) -> None:
    before = torch.get_rng_state()
    CocaDecoder(model, attention="performer", budget=4).logits(VisualTokens(raw(6)), text_ids(2, 5))
    assert torch.equal(before, torch.get_rng_state())


def learnt(seed: int, timed: bool) -> int:
    """How many of 8 sequences a small model has learnt to tell in 60 steps, where only the order of two frames differs.

    Things 0 to 3 come in pairs, each in both orders; the sentence is "first, then, second". The tokens come mixed, so
    that nothing but their times tells the order.
    """
    generator = torch.Generator().manual_seed(seed)
    decoder = CocaDecoder(small_coca(seed).requires_grad_(True))
    things = torch.randn(4, 2, WIDTH, generator=generator)
    sets, sentences = [], []
    for first, second in ((0, 1), (1, 0), (2, 3), (3, 2), (0, 2), (2, 0), (1, 3), (3, 1)):
        start = torch.tensor([0.0, 0.0, 2.0, 2.0], dtype=torch.float64)
        mixed = torch.randperm(4, generator=generator)
        tokens = torch.cat([things[first], things[second]])[mixed]
        sets.append(TokenSet(tokens, torch.ones(4), start[mixed], start[mixed] + 2, torch.full((4,), -1)))
        sentences.append([START, 5 + first, 3, 5 + second, END])
    ids = torch.tensor(sentences)
    visual = padded(sets, [(0.0, 4.0)] * 8 if timed else None)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=5e-3)
    for _ in range(60):
        scores = decoder.logits(visual, ids[:, :-1])
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        right = decoder.logits(visual, ids[:, :-1]).argmax(-1) == ids[:, 1:]
    return int(right.all(-1).sum())


def test_it_learns_which_of_two_frames_came_first_from_their_times_alone() -> None:
    assert learnt(0, timed=True) == 8
    assert learnt(0, timed=False) <= 4  # a sequence and its reverse look the same


# -- what does not fit -------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused(model: nn.Module) -> None:
    decoder = CocaDecoder(model)
    for visual, text, said in (
        (VisualTokens(raw(3)), text_ids(2, CONTEXT + 1), f"1 to {CONTEXT}"),
        (VisualTokens(raw(3)), text_ids(3, 4), "2 windows"),
        (VisualTokens(torch.randn(2, 3, 16)), text_ids(2, 4), "width 32, got 16"),
    ):
        with pytest.raises(EncoderInputError, match=said):
            decoder.logits(visual, text)
    with pytest.raises(EncoderInputError, match="needs start_seconds"):
        CocaDecoder(model, budget=2, gap_seconds=1.0).logits(VisualTokens(raw(3)), text_ids(2, 4))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokens": torch.zeros(2, 3, dtype=torch.int64)}, "floating point"),
        ({"weights": torch.ones(2, 4)}, r"weights must be \[2, 3\]"),
        ({"padding": torch.zeros(2, 3)}, "padding must be bool"),
        ({"start_seconds": torch.zeros(2, 3)}, "belong together"),
        ({"span": torch.zeros(2, 2)}, "needs start_seconds"),
    ],
)
def test_parts_that_disagree_are_refused(changes: dict[str, Tensor], said: str) -> None:
    with pytest.raises(EncoderInputError, match=said):
        VisualTokens(**{"tokens": torch.zeros(2, 3, 8), **changes})  # type: ignore[arg-type]


def test_token_sets_that_do_not_go_together_are_refused() -> None:
    one = token_set(3)
    for sets, spans, said in (
        ([], None, "at least one"),
        ([one, token_set(3, width=16)], None, "widths are 16, 32"),
        ([one], [], "got 0"),
        ([one], [(1.0, 1.0)], "end after it starts"),
        ([one], [(0.0, float("nan"))], "finite"),
    ):
        with pytest.raises(EncoderInputError, match=said):
            padded(sets, spans)  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_padding_keeps_every_token(counts: list[int]) -> None:
    sets = [token_set(count, seed=i) for i, count in enumerate(counts)]
    made = padded(sets, [(0.0, 9.0) if i % 2 else None for i in range(len(counts))])
    gone = torch.zeros(made.tokens.shape[:2], dtype=torch.bool) if made.padding is None else made.padding
    assert (~gone).sum(1).tolist() == counts
    for i, one in enumerate(sets):
        for name, part in (("tokens", made.tokens), ("weight", made.weights), ("end_seconds", made.end_seconds)):
            assert part is not None
            assert torch.equal(part[i][~gone[i]], getattr(one, name))
    assert made.span is not None
    assert made.span.isnan().all(1).tolist() == [i % 2 == 0 for i in range(len(counts))]
