"""Weights: where they are, how they get here, whether they are whole, and how they enter a model."""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from encoders.errors import WeightsDamaged, WeightsMismatch
from encoders.openclip.names import CHECKPOINT_SUFFIXES, some_of

__all__ = ["file_identity", "load_into", "random_identity", "read_checkpoint"]


def file_identity(path: Path) -> str:
    """``sha256:...`` of a file. The hub's cache names large files by that hash, so those need no reading."""
    real = path.resolve()
    if real.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", real.name):
        return f"sha256:{real.name}"
    return f"sha256:{hash_file(path)}"


def hash_file(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def random_identity(model: nn.Module, seed: int) -> str:
    """Identity of random weights: the seed, and the signs of some of them.

    The signs show when another version of torch draws other numbers; unlike the values themselves, they do not change
    with the last bit that another processor rounds differently.
    """
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        if value.is_floating_point():
            digest.update(key.encode())
            digest.update(bytes((value.flatten()[:16] < 0).to(torch.uint8).tolist()))
    return f"random:seed={seed}:{digest.hexdigest()[:16]}"


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint's tensors on the CPU; nothing but plain weights is ever unpickled.

    Raises:
        WeightsDamaged: for a file that is truncated, corrupt, of another kind, or holds more than plain weights.
    """
    if path.suffix not in CHECKPOINT_SUFFIXES:
        raise WeightsDamaged(f"{path}: a checkpoint must end in one of {', '.join(CHECKPOINT_SUFFIXES)}")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content:
        raise WeightsDamaged(f"{path} holds no weights, but {type(content).__name__}")
    odd = [key for key, value in content.items() if not isinstance(key, str) or not isinstance(value, torch.Tensor)]
    if odd:
        raise WeightsDamaged(f"{path} holds no state dict: {odd[0]!r} is no tensor")
    state = dict(content)
    if all(key.startswith("module.") for key in state):  # saved from a data-parallel wrapper
        state = {key[len("module.") :]: value for key, value in state.items()}
    broken = [k for k, v in state.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if broken:
        raise WeightsDamaged(f"{path}: {some_of(broken)} not finite")
    return state


def load_into(model: nn.Module, state: dict[str, torch.Tensor], path: Path, *, known_good: bool) -> None:
    """Put a state dict into a model, after the conversions that open_clip itself makes for older formats.

    Positional embeddings of another size are resized only for ``known_good`` weights (open_clip's own tags): for a
    file of unknown origin a different size means a different architecture.

    Raises:
        WeightsMismatch: when keys or shapes do not agree; some of them are named.
    """
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

    state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    wanted = model.state_dict()
    for key in ("logit_scale", "logit_bias"):  # a scalar in some versions, a vector of one in others
        if key in state and key in wanted and state[key].numel() == 1:
            state[key] = state[key].reshape(wanted[key].shape)
    if "logit_bias" in wanted and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros_like(wanted["logit_bias"])
    # newer transformers make these themselves
    if "text.transformer.embeddings.position_ids" not in wanted:
        state.pop("text.transformer.embeddings.position_ids", None)
    if known_good:
        resize_pos_embed(state, model)
        resize_text_pos_embed(state, model)
    missing, unexpected = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    shapes = [
        f"{key} {list(state[key].shape)} instead of {list(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    if missing or unexpected or shapes:
        parts = [
            f"{len(keys)} {what} ({some_of(keys)})"
            for what, keys in (("keys missing", missing), ("keys unexpected", unexpected), ("shapes differ", shapes))
            if keys
        ]
        raise WeightsMismatch(f"{path} belongs to another architecture: {'; '.join(parts)}")
    model.load_state_dict(state, strict=True)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(str(path), device="cpu"))
    except (SafetensorError, OSError) as error:
        raise WeightsDamaged(f"{path} is no whole safetensors file: {error}") from error


def _read_torch(path: Path) -> Any:
    if path.stat().st_size == 0:
        raise WeightsDamaged(f"{path} is empty")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise WeightsDamaged(
                    f"{path} is a TorchScript archive, which runs code; use open_clip's tag for these weights "
                    f"(such as openai), or save its state dict as .safetensors"
                )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsDamaged(
            f"{path} is corrupt or holds more than plain weights, and loading it could run code; "
            f"save its state dict as .safetensors ({str(error).splitlines()[0][:200]})"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsDamaged(f"{path} is no whole torch checkpoint: {str(error).splitlines()[0][:200]}") from error
