"""The provider behind ``openclip:ARCH/PRETRAINED``: from a name to a loaded encoder, and what the CLI shows."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from encoders.base import Encoder, EncoderInfo, LoadOptions, ModelDescription, ModelEntry, ProgressCallback
from encoders.batching import cpu_batch_size, cpu_lanes, cuda_batch_size
from encoders.cards import ModelCard
from encoders.errors import DeviceUnavailable, EncoderOptionError, OutOfDeviceMemory, TokensUnavailable
from encoders.openclip import hub, towers, weights
from encoders.openclip.architecture import Architecture, build, resolve
from encoders.openclip.cards import card_of
from encoders.openclip.encoder import OpenClipEncoder
from encoders.openclip.names import ModelName, parse_name, tag_config
from encoders.openclip.text import TextTokenizer
from encoders.precision import Tower, choose_tower

__all__ = ["OpenClipProvider", "describe_named", "load_named"]


class OpenClipProvider:
    """OpenCLIP's architectures with tagged, local or random weights."""

    def load(self, rest: str, options: LoadOptions) -> Encoder:
        name = parse_name(rest)
        if name.random and name.seed is None and options.seed:
            name = parse_name(f"{rest}?seed={options.seed}")  # the name must say which weights these are
        return load_named(name, options, card_of(name))

    def models(self) -> list[ModelEntry]:
        import open_clip

        entries = []
        for architecture, tag in open_clip.list_pretrained():
            record = tag_config(architecture, tag)
            found = hub.find_cached(record) is not None
            source = str(record.get("hf_hub") or record.get("url") or "").rstrip("/")
            entries.append(ModelEntry(f"openclip:{architecture}/{tag}", architecture, tag, found, source))
        return entries

    def describe(self, rest: str) -> ModelDescription:
        name = parse_name(rest)
        return describe_named(name, card_of(name))

    def require(self, rest: str, progress: ProgressCallback | None, *, download: bool) -> None:
        name = parse_name(rest)
        if name.tag is None:
            return
        record = tag_config(name.architecture, name.tag)
        if download:
            hub.obtain(name.full, record, progress)
        elif hub.find_cached(record) is None:
            hub.locate(name.full, record)

    def fetch(self, rest: str, progress: ProgressCallback | None) -> str:
        name = parse_name(rest)
        if name.random:
            return ""
        path = name.path
        if name.tag is not None:
            path = hub.obtain(name.full, tag_config(name.architecture, name.tag), progress)
        assert path is not None
        weights.read_checkpoint(path)
        return str(path)


def load_named(name: ModelName, options: LoadOptions, card: ModelCard) -> OpenClipEncoder:
    """Load the model of a parsed name.

    Raises:
        EncoderError: see :func:`encoders.registry.load_encoder`.
    """
    device = _device(options.device)
    if options.seed and name.seed != options.seed:
        raise EncoderOptionError(f"seed {options.seed} has no meaning for {name.full}")
    architecture = resolve(name)
    model, identity = _load_weights(name, architecture, options)
    try:
        return _finish(name, architecture, model, identity, device, options, card)
    except torch.cuda.OutOfMemoryError as error:
        raise OutOfDeviceMemory(f"{name.full} does not fit into the memory of {device}: {error}") from error


def describe_named(name: ModelName, card: ModelCard) -> ModelDescription:
    """What is known of the model of a parsed name without loading its weights.

    Raises:
        EncoderError: see :func:`encoders.registry.describe_model`.
    """
    architecture = resolve(name)
    config = architecture.config
    path, source = name.path, "comes with Longreel" if name.bundled else "a local file"
    if name.random:
        source = f"random weights, seed {name.seed or 0}"
    elif name.tag is not None:
        record = tag_config(name.architecture, name.tag)
        path, source = hub.find_cached(record), f"{hub.hub_source(record)[0]} on the Hugging Face hub"
    patch = config["vision_cfg"].get("patch_size")
    height, width = architecture.image_size
    return ModelDescription(
        name=name.full,
        architecture=name.architecture,
        pretrained=name.pretrained,
        random=name.random,
        dimension=int(config["embed_dim"]),
        image_height=height,
        image_width=width,
        patch_size=int(patch) if isinstance(patch, int) else None,
        context_length=architecture.context_length,
        parameters=_count_parameters(config),
        quick_gelu=bool(config.get("quick_gelu", False)),
        preprocess=architecture.preprocess.as_dict(),
        source=source,
        downloaded=name.random or path is not None,
        path=str(path) if path else None,
        size_bytes=path.stat().st_size if path else None,
        notes=architecture.notes,
        card=card,
    )


def _device(asked: str) -> torch.device:
    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise EncoderOptionError(f"device {asked!r} is not one of auto, cpu, cuda, cuda:N, mps") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise EncoderOptionError(f"device {asked!r} is not one of auto, cpu, cuda, cuda:N, mps")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceUnavailable(f"device {asked!r} is not there: torch sees {count} GPUs")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceUnavailable("device 'mps' is not there")
    return device


def _load_weights(name: ModelName, architecture: Architecture, options: LoadOptions) -> tuple[nn.Module, str]:
    """The model in fp32 on the CPU, and the identity of its weights."""
    if name.random:
        options.tell(f"drawing random weights for {name.full}")
        model = build(architecture.config, name.seed or 0)
        return model, weights.random_identity(model, name.seed or 0)
    path: Path | None = name.path
    if name.tag is not None:
        path = hub.obtain(name.full, tag_config(name.architecture, name.tag), options.progress)
    assert path is not None
    options.tell(f"loading {name.full}", 0, path.stat().st_size)
    state = weights.read_checkpoint(path)
    model = build(architecture.config, 0)
    weights.load_into(model, state, path, known_good=name.tag is not None)
    return model, weights.file_identity(path)


def _finish(
    name: ModelName,
    architecture: Architecture,
    model: nn.Module,
    identity: str,
    device: torch.device,
    options: LoadOptions,
    card: ModelCard,
) -> OpenClipEncoder:
    preprocess = architecture.preprocess
    model.to(device)
    visual: nn.Module = model.visual  # type: ignore[assignment]
    size = architecture.image_size
    tower = choose_tower(visual, options.precision, device, size, towers.lower_precision, towers.embed)
    model.visual = tower.module
    probe = torch.zeros(1, 3, *size, device=device)
    dimension, patches, width, grid, notes = _probe(tower, probe)
    batch_size = options.batch_size or _batch_size(tower, probe, patches)
    info = EncoderInfo(
        name=name.full,
        dimension=dimension,
        token_width=width,
        patches=patches,
        grid=grid,
        image_height=size[0],
        image_width=size[1],
        preprocess=preprocess.as_dict(),
        fingerprint=_fingerprint(architecture, identity),
        random=name.random,
        precision=tower.precision,
        precision_reason=tower.reason,
        device=str(device),
        batch_size=batch_size,
        weights=identity,
        notes=architecture.notes + notes,
        lanes=cpu_lanes(options.threads) if device.type == "cpu" else 1,
        card=card,
    )

    def tokenizer() -> TextTokenizer:
        return TextTokenizer(name, architecture.config["text_cfg"], architecture.context_length)

    return OpenClipEncoder(info, model, tower, preprocess, tokenizer)


def _probe(tower: Tower, pixels: torch.Tensor) -> tuple[int, int, int, tuple[int, int], tuple[str, ...]]:
    """Widths as the tower really gives them: D, P, d, the grid, and a note when there are no tokens."""
    with torch.inference_mode():
        try:
            pooled, spatial, grid = tower.run(towers.embed_with_tokens, pixels)
        except TokensUnavailable as error:
            return int(tower.run(towers.embed, pixels).shape[1]), 0, 0, (0, 0), (str(error),)
    return int(pooled.shape[1]), int(spatial.shape[1]), int(spatial.shape[2]), grid, ()


def _batch_size(tower: Tower, pixels: torch.Tensor, patches: int) -> int:
    if tower.device.type != "cuda":
        return cpu_batch_size(patches)
    frames = 8
    torch.cuda.reset_peak_memory_stats(tower.device)
    before = torch.cuda.memory_allocated(tower.device)
    with torch.inference_mode():
        tower.run(towers.embed, pixels.expand(frames, -1, -1, -1))
    used = torch.cuda.max_memory_allocated(tower.device) - before
    return cuda_batch_size(used / frames, torch.cuda.mem_get_info(tower.device)[0])


def _fingerprint(architecture: Architecture, identity: str) -> str:
    content: dict[str, Any] = {
        "format": 1,
        "architecture": architecture.config,
        "preprocess": architecture.preprocess.identity(),
        "weights": identity,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _count_parameters(config: dict[str, Any]) -> int | None:
    if "hf_model_name" in config["text_cfg"]:
        return None  # its text tower's size lies on the hub
    return sum(parameter.numel() for parameter in build(config, 0, "meta").parameters())
