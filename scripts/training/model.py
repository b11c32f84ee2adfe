"""The bundled model while it learns: made from its configuration, written as the file that ships."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn

import encoders.bundled.tower as tower  # makes the image tower known to timm
from scripts.training.loop import TrainingError

__all__ = ["CONFIG", "make_model", "shipped_model", "write_weights"]

CONFIG = Path(tower.__file__).with_name("tiny.json")


def make_model(seed: int, drop_path: float = 0.0) -> nn.Module:
    """The model with weights drawn from ``seed``, ready to learn."""
    from encoders.openclip.architecture import build, resolve
    from encoders.openclip.names import parse_name

    config = resolve(parse_name(f"{CONFIG}/random")).config
    config["vision_cfg"] = {**config["vision_cfg"], "timm_drop_path": drop_path or None}
    model = build(config, seed)
    for block in (*model.text.transformer.resblocks, *model.text_decoder.resblocks, *model.text_decoder.cross_attn):
        nn.init.zeros_(block.mlp.c_proj.weight)  # blocks begin small, as those of the image tower do
    projection = model.text_decoder.text_projection
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nn.init.normal_(projection, std=projection.shape[0] ** -0.5)
    return model.requires_grad_(True)


def shipped_model() -> nn.Module:
    """The model with the weights that ship, to be looked through and not to be trained."""
    from safetensors.torch import load_file

    model = make_model(seed=0)
    model.load_state_dict(load_file(CONFIG.with_name("tiny.safetensors")))
    return model.requires_grad_(False).eval()


def write_weights(model: nn.Module, path: Path) -> None:
    """Write the weights in half precision as safetensors, in one move.

    Raises:
        TrainingError: where a weight does not fit into half precision; nothing is written.
    """
    from safetensors.torch import save

    state = {}
    for key, value in model.state_dict().items():
        half = value.detach().cpu().contiguous()
        if half.is_floating_point():
            half = half.to(torch.float16)
            if not bool(torch.isfinite(half).all()):
                largest = float(value.abs().max())
                raise TrainingError(f"{key} does not fit into half precision: its largest is {largest}, 65504 fits")
        state[key] = half
    partial = path.with_suffix(".partial")
    partial.write_bytes(save(state))  # not save_file, which lets nobody else read the file
    os.replace(partial, path)
