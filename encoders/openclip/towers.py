"""What differs between open_clip's image towers, in one place.

Shapes: T pictures ``[T, 3, h, w]`` in the tower's dtype, D width of the joint space, P patches, d width of a token.
"""

from __future__ import annotations

import torch
from torch import nn

from encoders.errors import TokensUnavailable

__all__ = ["decoder_tokens", "embed", "embed_with_tokens", "lower_precision"]


def embed(visual: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Pictures -> ``[T, D]``, in the tower's dtype, of any length."""
    features = visual(pixels)
    # towers built with output_tokens (CoCa) answer with a pair
    pooled = features[0] if isinstance(features, tuple) else features
    assert isinstance(pooled, torch.Tensor)
    return pooled


def embed_with_tokens(visual: nn.Module, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, tuple[int, int]]:
    """Pictures -> ``[T, D]``, ``[T, P, d]`` and the grid (rows, columns) that the P tokens come from, row by row.

    The tokens are the last feature map of the tower: for a ViT the patch tokens after its final norm (before it where
    attention pooling puts that norm behind the pooling), for a convolutional tower its last stage.

    Raises:
        TokensUnavailable: for a tower that gives no spatial feature map.
    """
    forward = getattr(visual, "forward_intermediates", None)
    if forward is None:
        raise TokensUnavailable(f"the image tower {type(visual).__name__} gives no spatial tokens")
    # CoCa's final norm has the width of the joint space, not of the tokens
    normed = getattr(visual, "attn_pool", None) is None
    try:
        output = forward(pixels, indices=1, normalize_intermediates=normed, output_fmt="NCHW")
    except (AttributeError, AssertionError, NotImplementedError) as error:
        # towers of timm that have no intermediate features, or none on a grid
        raise TokensUnavailable(
            f"the image tower {type(getattr(visual, 'trunk', visual)).__name__} gives no spatial tokens: {error}"
        ) from error
    feature_map = output["image_intermediates"][-1]
    rows, columns = int(feature_map.shape[2]), int(feature_map.shape[3])
    return output["image_features"], feature_map.flatten(2).transpose(1, 2), (rows, columns)


def decoder_tokens(visual: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Pictures -> what a CoCa model's caption decoder reads of them, ``[T, P', d']`` in the tower's dtype.

    Raises:
        TokensUnavailable: for a tower that gives nothing to a decoder.
    """
    features = visual(pixels)
    if not isinstance(features, tuple) or len(features) != 2 or features[1].ndim != 3:
        raise TokensUnavailable(f"the image tower {type(visual).__name__} gives no tokens to a caption decoder")
    tokens: torch.Tensor = features[1]
    return tokens


def lower_precision(visual: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Convert a tower's weights in place, as open_clip does: norms keep fp32 weights in its own towers."""
    from open_clip.model import convert_weights_to_lp
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import LayerNormFp32

    if not isinstance(visual, TimmModel):
        convert_weights_to_lp(visual, dtype=dtype)
        return visual
    tower: nn.Module = visual.to(dtype)
    for module in tower.modules():
        if isinstance(module, LayerNormFp32):
            module.float()
    return tower
