"""CASA-style fusion: windows, one softmax, order, weights, and the stream that equals the whole."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from csat_fusion.attention.casa import CASAFusion
from csat_fusion.compressors.base import make_compressor
from csat_fusion.errors import CompressionError

E, H = 16, 2


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TEXT, VISUAL = random(2, 7, E), random(2, 9, E, seed=1)
TEXT_WINDOW = torch.tensor([[0, 0, 1, 1, 1, 2, 2], [0, 1, 1, 1, 1, 1, 3]])
VISUAL_WINDOW = torch.tensor([[0, 0, 0, 1, 1, 1, 2, 2, 2]]).expand(2, 9)


def make(**options: Any) -> CASAFusion:
    return CASAFusion(E, H, **options).double()


def test_one_softmax_over_the_windows_visual_tokens_and_the_text_so_far() -> None:
    fusion = make(residual=False)
    weights = random(2, 9, seed=2).abs() + 0.1
    got = fusion(TEXT, VISUAL, TEXT_WINDOW, VISUAL_WINDOW, weights=weights)
    wq, wk, wv = fusion.text_weight.chunk(3)
    for b in range(2):
        for i in range(7):
            window = TEXT_WINDOW[b, i]
            text = [j for j in range(i + 1) if TEXT_WINDOW[b, j] == window]
            seen = torch.cat([VISUAL[b, VISUAL_WINDOW[b] == window], TEXT[b, text]])
            mass = torch.cat([weights[b, VISUAL_WINDOW[b] == window], torch.ones(len(text))])
            heads = []
            for rows in torch.arange(E).chunk(H):
                scores = seen @ wk[rows].T @ (wq[rows] @ TEXT[b, i]) / math.sqrt(E / H) + mass.log()
                heads.append(torch.softmax(scores, dim=0) @ seen @ wv[rows].T)
            torch.testing.assert_close(got[b, i], fusion.out_weight @ torch.cat(heads))


def test_nothing_of_later_text_or_of_other_windows_is_seen() -> None:
    fusion = make()
    text, visual = TEXT.clone().requires_grad_(), VISUAL.clone().requires_grad_()
    out = fusion(text, visual, TEXT_WINDOW, VISUAL_WINDOW)
    for i in range(7):
        of_text, of_visual = torch.autograd.grad(out[0, i].sum(), (text, visual), retain_graph=True)
        same = TEXT_WINDOW[0] == TEXT_WINDOW[0, i]
        same[i + 1 :] = False
        assert torch.equal(of_text[0].abs().sum(-1) > 0, same)
        assert torch.equal(of_visual[0].abs().sum(-1) > 0, VISUAL_WINDOW[0] == TEXT_WINDOW[0, i])
        assert not of_text[1].any()


def test_windows_by_seconds_are_those_by_number() -> None:
    fusion = make(window_seconds=2.0)
    want = fusion(TEXT, VISUAL, TEXT_WINDOW, VISUAL_WINDOW)
    got = fusion(TEXT, VISUAL, TEXT_WINDOW * 2.0 + 1.5, VISUAL_WINDOW * 2.0)
    torch.testing.assert_close(got, want)
    with pytest.raises(CompressionError, match="text_window in seconds needs window_seconds"):
        make()(TEXT, VISUAL, TEXT_WINDOW * 2.0, VISUAL_WINDOW)
    with pytest.raises(CompressionError, match="visual_window must be finite, got nan"):
        fusion(TEXT, VISUAL, TEXT_WINDOW, VISUAL_WINDOW * math.nan)


def test_the_last_bit_of_a_time_does_not_decide_its_window() -> None:
    fusion = make(window_seconds=0.1)
    number = torch.arange(1, 500)
    exact = number.double() * 0.1
    steps = torch.full((499,), 0.1, dtype=torch.float64).cumsum(0)
    for times in (exact, exact.float(), number / 10, (number.double() / 10).float(), steps):
        for sign in (-1.0, 1.0):
            near = torch.nextafter(times, times * (1 + sign))
            for given in (times, near):
                got = fusion._windows("text_window", given[None], torch.zeros(1, 499, E))
                assert torch.equal(got[0], number)
    for part, shift in ((0.05, 0), (-0.05, -1), (0.001, 0), (-0.001, -1)):  # within a window nothing is moved
        for dtype in (torch.float32, torch.float64):
            got = fusion._windows("text_window", (exact + part).to(dtype)[None], torch.zeros(1, 499, E))
            assert torch.equal(got[0], number + shift)
    with pytest.raises(CompressionError, match=r"in seconds must be float32 or float64, got torch\.bfloat16"):
        fusion(TEXT, VISUAL, TEXT_WINDOW.bfloat16(), VISUAL_WINDOW)


def test_a_stream_keeps_no_graph() -> None:
    fusion = make()
    stream = fusion.stream()
    visual = random(1, 3, E).requires_grad_()
    weights = torch.ones(1, 3, dtype=torch.float64, requires_grad=True)
    stream.start_window(visual, weights)
    before = random(1, 2, E, seed=1).requires_grad_()
    stream.step(before)
    for kept in (stream._key, stream._value, stream._bias):
        assert kept is not None
        assert not kept.requires_grad
    now = random(1, 2, E, seed=2).requires_grad_()
    stream.step(now).square().sum().backward()  # of this step alone
    assert now.grad is not None
    assert before.grad is None
    assert visual.grad is None
    assert fusion.text_weight.grad is not None


def test_a_merged_visual_token_of_weight_w_is_w_equal_ones() -> None:
    fusion = make()
    counts = torch.tensor([1, 3, 2, 1, 1, 4, 2, 2, 5])
    got = fusion(TEXT, VISUAL, TEXT_WINDOW, VISUAL_WINDOW, weights=counts.expand(2, 9))
    many, at = VISUAL.repeat_interleave(counts, 1), VISUAL_WINDOW.repeat_interleave(counts, 1)
    torch.testing.assert_close(got, fusion(TEXT, many, TEXT_WINDOW, at))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", [{}, {"visual_dim": 5, "gated": True}, {"residual": False, "bias": False}])
def test_the_stream_gives_what_the_whole_sequence_gives(options: dict[str, Any], weighted: bool) -> None:
    fusion = make(**options)
    if fusion.gate is not None:
        nn.init.constant_(fusion.gate, 0.7)
    visual = VISUAL[..., : fusion.visual_dim]
    weights = random(2, 9, seed=2).abs() + 0.1 if weighted else None
    at = torch.tensor([0, 0, 1, 1, 1, 2, 2])
    want = fusion(TEXT, visual, at.expand(2, 7), VISUAL_WINDOW, weights=weights)
    stream, got = fusion.stream(), []
    for window, pieces in enumerate(([slice(0, 1), slice(1, 2)], [slice(2, 4), slice(4, 5)], [slice(5, 7)])):
        here = slice(3 * window, 3 * window + 3)
        stream.start_window(visual[:, here], None if weights is None else weights[:, here])
        got += [stream.step(TEXT[:, piece]) for piece in pieces]
    torch.testing.assert_close(torch.cat(got, dim=1), want)


def test_a_window_may_be_a_token_set() -> None:
    fusion = make()
    compressor = make_compressor("ward", 3)
    for second in range(5):
        compressor.update(random(2, E, seed=second), second, second + 1)
    kept = compressor.result()
    stream, other = fusion.stream(), fusion.stream()
    stream.start_window(kept)
    other.start_window(kept.tokens, kept.weight)
    assert torch.equal(stream.step(TEXT[:1]), other.step(TEXT[:1]))
    with pytest.raises(CompressionError, match="brings its own weights"):
        stream.start_window(kept, kept.weight)


def test_the_state_of_a_stream_is_that_of_one_window_however_long() -> None:
    fusion = make()
    stream = fusion.stream()
    assert stream.state_bytes == 0
    assert stream.step(TEXT[0, :1]).shape == (1, E)  # before any window: only text
    sizes = []
    assert stream.state_bytes == 2 * E * 8
    with torch.no_grad():
        for hour in range(50):
            stream.start_window(random(6, E, seed=hour), torch.ones(6))
            assert stream.state_bytes == 6 * (2 * E + 1) * 8
            for _ in range(4):
                stream.step(TEXT[0, :2])
            sizes.append(stream.state_bytes)
    assert set(sizes) == {(6 + 8) * (2 * E + 1) * 8}  # keys, values and a log weight each, in float64
    stream.start_window(torch.zeros(0, E, dtype=torch.float64))
    assert stream.state_bytes == 0


def test_no_visual_tokens_at_all_and_padding() -> None:
    fusion = make()
    alone = fusion(TEXT, VISUAL[:, :0], TEXT_WINDOW, VISUAL_WINDOW[:, :0])
    masked = fusion(TEXT, VISUAL, TEXT_WINDOW, VISUAL_WINDOW, weights=torch.zeros(2, 9))
    torch.testing.assert_close(masked, alone)
    gone = fusion(TEXT, VISUAL, TEXT_WINDOW, VISUAL_WINDOW, visual_padding_mask=torch.ones(2, 9, dtype=torch.bool))
    torch.testing.assert_close(gone, alone)
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[:, 5:] = True
    padded = fusion(TEXT, VISUAL, TEXT_WINDOW, VISUAL_WINDOW, text_padding_mask=padding)
    short = fusion(TEXT[:, :5], VISUAL, TEXT_WINDOW[:, :5], VISUAL_WINDOW)
    torch.testing.assert_close(padded[:, :5], short)
    first = fusion(TEXT, VISUAL, TEXT_WINDOW * 0, VISUAL_WINDOW, text_padding_mask=padding.flip(1))
    late = fusion(TEXT[:, 2:], VISUAL, TEXT_WINDOW[:, 2:] * 0, VISUAL_WINDOW)
    torch.testing.assert_close(first[:, 2:], late)
    torch.testing.assert_close(padded[:, 5:], TEXT[:, 5:])  # a context of zero, the bias of the output is 0


def test_gated_it_starts_as_identity_and_learns() -> None:
    fusion = make(gated=True)
    out = fusion(TEXT, VISUAL, TEXT_WINDOW, VISUAL_WINDOW)
    assert torch.equal(out, TEXT)
    out.square().sum().backward()
    assert fusion.gate is not None
    assert fusion.gate.grad is not None
    assert fusion.gate.grad.abs().sum() > 0


def test_gradients_agree_with_finite_differences() -> None:
    fusion = make(gated=True, visual_dim=5)
    nn.init.constant_(fusion.gate, 0.5)  # type: ignore[arg-type]
    text, visual = TEXT.clone().requires_grad_(), VISUAL[..., :5].clone().requires_grad_()
    weights = (random(2, 9, seed=2).abs() + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda t, v, w: fusion(t, v, TEXT_WINDOW, VISUAL_WINDOW, weights=w), (text, visual, weights), fast_mode=True
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_are_near(dtype: torch.dtype) -> None:
    fusion = make().float()
    parts = TEXT.float(), VISUAL.float(), TEXT_WINDOW, VISUAL_WINDOW
    with torch.no_grad():
        want = fusion(*parts)
        with torch.autocast("cpu", dtype=dtype):
            cast = fusion(*parts)
        half = fusion.to(dtype)(TEXT.to(dtype), VISUAL.to(dtype), TEXT_WINDOW, VISUAL_WINDOW)
    assert half.dtype == dtype
    for got in (cast, half):
        assert float((got.float() - want).abs().max()) < 0.05 * float(want.abs().max())


def test_export_gives_the_same_program() -> None:
    fusion = make(window_seconds=2.0).eval()

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fusion = fusion

        def forward(self, text: Tensor, visual: Tensor, at: Tensor, seconds: Tensor, weights: Tensor) -> Tensor:
            out: Tensor = self.fusion(text, visual, at, seconds, weights=weights)
            return out

    weights = random(2, 9, seed=2).abs()
    file = io.BytesIO()
    torch.export.save(torch.export.export(Wrapped(), (TEXT, VISUAL, TEXT_WINDOW, VISUAL_WINDOW * 2.0, weights)), file)
    file.seek(0)
    program = torch.export.load(file)
    other = (TEXT.flip(1), VISUAL.flip(0), TEXT_WINDOW.flip(0), VISUAL_WINDOW * 2.0 + 1, weights.flip(1))
    torch.testing.assert_close(program.module()(*other), Wrapped()(*other))


def test_state_dict_and_seed() -> None:
    before = torch.get_rng_state()
    fusion = CASAFusion(E, H, visual_dim=5, gated=True)
    assert torch.equal(torch.get_rng_state(), before)
    assert {name: tuple(t.shape) for name, t in fusion.state_dict().items()} == {
        "text_weight": (3 * E, E),
        "text_bias": (3 * E,),
        "visual_weight": (2 * E, 5),
        "visual_bias": (2 * E,),
        "out_weight": (E, E),
        "out_bias": (E,),
        "gate": (1,),
    }
    assert set(CASAFusion(E, H, bias=False).state_dict()) == {"text_weight", "out_weight"}
    assert torch.equal(CASAFusion(E, H).text_weight, CASAFusion(E, H).text_weight)
    assert not torch.equal(CASAFusion(E, H, seed=1).text_weight, CASAFusion(E, H).text_weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": TEXT[..., :5]}, r"expected floating-point text \[B, L, 16\]"),
        ({"visual": VISUAL[:1]}, r"visual torch\.float64 \[1, 9, 16\]"),
        ({"text": TEXT.long()}, r"got text torch\.int64"),
        ({"text": TEXT.float()}, r"text is torch\.float32, the parameters are torch\.float64"),
        ({"visual": VISUAL.to("meta")}, "visual is on meta, the parameters are on cpu"),
        ({"text_window": TEXT_WINDOW[:, :3]}, r"text_window must be \[2, 7\]"),
        ({"visual_window": VISUAL_WINDOW > 0}, r"whole numbers or seconds, got torch\.bool"),
        ({"weights": torch.ones(2, 8)}, r"weights must be \[2, 9\]"),
        ({"weights": torch.full((2, 9), -1.0)}, r"at least 0, got -1\.0"),
        ({"text_padding_mask": torch.zeros(2, 7)}, r"text_padding_mask must be bool \[2, 7\], got torch\.float32"),
        ({"visual_padding_mask": torch.zeros(2, 7, dtype=torch.bool)}, r"visual_padding_mask must be bool \[2, 9\]"),
    ],
)
def test_bad_input_is_named(change: dict[str, Tensor], message: str) -> None:
    good = {"text": TEXT, "visual": VISUAL, "text_window": TEXT_WINDOW, "visual_window": VISUAL_WINDOW}
    with pytest.raises(CompressionError, match=message):
        make()(**{**good, **change})


def test_bad_options_and_steps_are_named() -> None:
    for options, message in (
        ({"num_heads": 3}, "num_heads must divide embed_dim 16, got 3"),
        ({"window_seconds": 0.0}, r"window_seconds must be above 0 and finite, got 0\.0"),
        ({"window_seconds": "1"}, "window_seconds must be above 0 and finite, got '1'"),
        ({"dropout": -0.1}, r"dropout must be at least 0 and below 1, got -0\.1"),
        ({"dropout": "0"}, "dropout must be at least 0 and below 1, got '0'"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"embed_dim": 0}, "embed_dim must be a whole number, at least 1, got 0"),
        ({"visual_dim": 0}, "visual_dim must be a whole number, at least 1, got 0"),
    ):
        with pytest.raises(CompressionError, match=message):
            CASAFusion(**{"embed_dim": E, "num_heads": H, **options})
    stream = make().stream()
    stream.start_window(VISUAL[:, :2])
    bytes_before = stream.state_bytes
    with pytest.raises(CompressionError, match=r"text torch\.float64 \[1, 2, 16\]"):
        stream.step(TEXT[:1, :2])  # another B than the window's
    with pytest.raises(CompressionError, match=r"weights must be \[2, 2\]"):
        stream.start_window(VISUAL[:, :2], torch.ones(2, 3))
    assert stream.state_bytes == bytes_before
