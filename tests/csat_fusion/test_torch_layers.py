"""Our attentions inside torch's own transformer layers, in whatever mode these are called."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from csat_fusion.attention.base import ATTENTIONS, CrossAttention, make_attention
from csat_fusion.errors import CompressionError

E, H, N = 16, 2, 12
EVERY = pytest.mark.parametrize("name", list(ATTENTIONS))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ours(name: str, seed: int = 0) -> CrossAttention:
    return make_attention(name, E, H, budget=4, tokens=N, seed=seed)


def encoder_layer(attention: nn.Module | None = None) -> nn.TransformerEncoderLayer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(E, H, 32, dropout=0.0, batch_first=True)
    if attention is not None:
        layer.self_attn = attention  # type: ignore[assignment]
    return layer


def decoder_layer(name: str) -> nn.TransformerDecoderLayer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.TransformerDecoderLayer(E, H, 32, dropout=0.0, batch_first=True)
    layer.multihead_attn = ours(name)  # type: ignore[assignment]
    return layer


def by_hand(layer: nn.TransformerEncoderLayer, x: Tensor, **masks: Any) -> Tensor:
    """The layer's sum, with its attention called as it says."""
    attended: Tensor = layer.self_attn(x, x, x, **masks)[0]
    x = layer.norm1(x + attended)
    out: Tensor = layer.norm2(x + layer.linear2(torch.relu(layer.linear1(x))))
    return out


@EVERY
@pytest.mark.parametrize("padded", [False, True])
def test_an_encoder_layer_calls_it_in_every_mode(name: str, padded: bool) -> None:
    """In eval mode without gradient, torch would go around ``forward`` to its own exact kernel."""
    layer, x = encoder_layer(ours(name)), random(3, N, E, seed=1)
    padding = None
    if padded:
        padding = torch.zeros(3, N, dtype=torch.bool)
        padding[1, 7:] = True
    want = by_hand(layer, x, key_padding_mask=padding)
    torch.testing.assert_close(layer.train()(x, src_key_padding_mask=padding), want)
    torch.testing.assert_close(layer.eval()(x, src_key_padding_mask=padding), want)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, src_key_padding_mask=padding), want)
        layer.train()
        torch.testing.assert_close(layer(x, src_key_padding_mask=padding), want)
    with torch.inference_mode():
        torch.testing.assert_close(layer.eval()(x, src_key_padding_mask=padding), want)
    layer.train()(x).square().sum().backward()
    assert layer.self_attn.in_proj_weight.grad is not None


@EVERY
def test_an_encoder_of_such_layers(name: str) -> None:
    x = random(3, N, E, seed=1)
    padding = torch.zeros(3, N, dtype=torch.bool)
    padding[:, 9:] = True
    encoder = nn.TransformerEncoder(encoder_layer(ours(name)), 2, enable_nested_tensor=False)
    want = x
    for layer in encoder.layers:
        want = by_hand(layer, want, key_padding_mask=padding)  # type: ignore[arg-type]
    for training in (True, False):
        encoder.train(training)
        torch.testing.assert_close(encoder(x, src_key_padding_mask=padding), want)
        with torch.no_grad():
            torch.testing.assert_close(encoder(x, src_key_padding_mask=padding), want)


def test_an_encoder_made_before_the_exchange_says_what_to_do() -> None:
    encoder = nn.TransformerEncoder(encoder_layer(), 1).eval()
    encoder.layers[0].self_attn = ours("csat")
    padding = torch.zeros(3, N, dtype=torch.bool)
    padding[:, 9:] = True
    with torch.no_grad(), pytest.raises(CompressionError, match="enable_nested_tensor=False"):
        encoder(random(3, N, E), src_key_padding_mask=padding)


@pytest.mark.parametrize("name", ["exact", "csat", "csat-feature"])
@pytest.mark.parametrize("hint", [False, True])
def test_causal_masks_of_an_encoder(name: str, hint: bool) -> None:
    x = random(3, N, E, seed=1)
    mask = nn.Transformer.generate_square_subsequent_mask(N)
    encoder = nn.TransformerEncoder(encoder_layer(ours(name)), 1, enable_nested_tensor=False).eval()
    want = by_hand(encoder.layers[0], x, is_causal=True)  # type: ignore[arg-type]
    with torch.no_grad():
        torch.testing.assert_close(encoder(x, mask=mask, is_causal=hint), want)
        torch.testing.assert_close(encoder(x, mask=mask), want)
    if name == "exact":
        torch.testing.assert_close(encoder(x[:, :4], mask=mask[:4, :4])[0], want[0, :4])


@EVERY
def test_a_decoder_layer_attends_to_a_memory(name: str) -> None:
    layer = decoder_layer(name)
    x, memory = random(3, 5, E, seed=1), random(3, N, E, seed=2)
    padding = torch.zeros(3, N, dtype=torch.bool)
    padding[2, 6:] = True
    first = layer.norm1(x + layer.self_attn(x, x, x, need_weights=False)[0])
    second = layer.norm2(first + layer.multihead_attn(first, memory, memory, padding)[0])
    want = layer.norm3(second + layer.linear2(torch.relu(layer.linear1(second))))
    decoder = nn.TransformerDecoder(layer, 1)
    for training in (True, False):
        for module in (layer, decoder):
            module.train(training)
            torch.testing.assert_close(module(x, memory, memory_key_padding_mask=padding), want)
            with torch.no_grad():
                torch.testing.assert_close(module(x, memory, memory_key_padding_mask=padding), want)


@EVERY
def test_a_decoder_layer_attends_to_itself(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.TransformerDecoderLayer(E, H, 32, dropout=0.0, batch_first=True)
    layer.self_attn = ours(name)  # type: ignore[assignment]
    x, memory = random(3, N, E, seed=1), random(3, 7, E, seed=2)
    first = layer.norm1(x + layer.self_attn(x, x, x)[0])
    second = layer.norm2(first + layer.multihead_attn(first, memory, memory, need_weights=False)[0])
    want = layer.norm3(second + layer.linear2(torch.relu(layer.linear1(second))))
    for training in (True, False):
        layer.train(training)
        torch.testing.assert_close(layer(x, memory), want)
        with torch.no_grad():
            torch.testing.assert_close(layer(x, memory), want)
