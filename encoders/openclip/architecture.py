"""What a name stands for before weights are loaded: the architecture, its activation and its preprocessing.

open_clip takes preprocessing and activation from the pretrained tag, and for anything else falls back to the
architecture's defaults without a word: a local copy of OpenAI's ViT-B-32 then runs with the wrong activation, a DFN one
with the wrong interpolation. Here each is taken from a statement, or refused.
"""

from __future__ import annotations

import importlib
import json
import math
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from encoders.errors import PreprocessMismatch, UnknownModel, WeightsMismatch, WeightsUnavailable
from encoders.openclip.names import ModelName, some_of, tag_config, tags_of
from encoders.preprocess import Preprocess

__all__ = ["Architecture", "build", "resolve"]

SIDECAR = "open_clip_config.json"
_PREPROCESS_KEYS = ("mean", "std", "interpolation", "resize_mode", "fill_color")


@dataclass(frozen=True)
class Architecture:
    """A resolved model: ``config`` are open_clip's model keyword arguments, ``quick_gelu`` settled."""

    config: dict[str, Any]
    preprocess: Preprocess
    notes: tuple[str, ...]

    @property
    def image_size(self) -> tuple[int, int]:
        return _image_size(self.config)

    @property
    def context_length(self) -> int:
        multimodal = self.config.get("multimodal_cfg") or {}
        return int(multimodal.get("context_length") or self.config["text_cfg"].get("context_length") or 77)


def resolve(name: ModelName) -> Architecture:
    """Settle architecture, activation and preprocessing of a parsed name.

    Raises:
        UnknownModel: for a configuration file that is none.
        PreprocessMismatch: when the weights are a local file, and the pretrained weights known for the architecture
            were not all prepared in the same way, and nothing says which way is right.
        WeightsMismatch: when the configuration beside a checkpoint is that of another architecture.
    """
    config, file_preprocess = _base_config(name)
    size = _image_size(config)
    if name.config_path is not None and file_preprocess is not None:
        return Architecture(config, Preprocess.from_config(file_preprocess, size, name.config_path.name), ())
    if name.tag is not None:
        return _like_tag(config, name.architecture, name.tag, size)
    if name.path is not None:
        return _local(config, name, name.path, size)
    settings = {} if name.config_path is not None else _tag_settings(name.architecture, config)
    if len({_frozen(preprocess) for preprocess, _ in settings.values()}) == 1:
        return _like_all_tags(config, name.architecture, settings, size)
    return Architecture(config, Preprocess.from_config({}, size, "defaults of open_clip"), ())


def build(config: dict[str, Any], seed: int, device: str = "cpu") -> nn.Module:
    """Build the model in fp32 on the CPU (or without storage, on ``meta``), its weights drawn from ``seed``.

    The global random state is left alone.

    Raises:
        UnknownModel: when open_clip (or timm, or transformers) cannot build it.
        WeightsUnavailable: when its text tower's configuration lies on the hub and cannot be had.
    """
    from open_clip import CLIP, CoCa, CustomTextCLIP

    arguments = deepcopy(config)
    if "timm_model_name" in arguments["vision_cfg"]:
        arguments["vision_cfg"]["timm_model_pretrained"] = False
        if arguments["vision_cfg"]["timm_model_name"].startswith("longreel_"):
            importlib.import_module("encoders.bundled.tower")  # makes our own tower known to timm
    hub_text = "hf_model_name" in arguments["text_cfg"]
    if hub_text:
        arguments["text_cfg"]["hf_model_pretrained"] = False
    custom_text = bool(arguments.pop("custom_text", False)) or hub_text
    kind = CLIP if not custom_text else CoCa if "multimodal_cfg" in arguments else CustomTextCLIP
    with torch.random.fork_rng(devices=[]), torch.device(device), _MarkedEmpty():
        torch.default_generator.manual_seed(seed)
        try:
            # cast_dtype picks the LayerNorm that computes in fp32 whatever the dtype of its input
            model: nn.Module = kind(**arguments, cast_dtype=torch.bfloat16)
        except OSError as error:
            raise WeightsUnavailable(
                f"the text tower {arguments['text_cfg'].get('hf_model_name')!r} needs its configuration from the "
                f"hub: {_first_line(error)}"
            ) from error
        except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise UnknownModel(f"open_clip cannot build this architecture: {_first_line(error)}") from error
        if device != "meta":
            _draw_forgotten(model)
    return model.eval().requires_grad_(False)


class _MarkedEmpty(TorchFunctionMode):
    """Fills what ``torch.empty`` gives with NaN, so that a parameter that is never initialised shows."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.empty and result.is_floating_point():
            result.fill_(math.nan)
        return result


def _draw_forgotten(model: nn.Module) -> None:
    """Draw the parameters that open_clip leaves as the memory was (one of CoCa's), so that the seed decides all."""
    for _, parameter in sorted(model.named_parameters()):
        if bool(torch.isnan(parameter).any()):
            nn.init.normal_(parameter, std=float(parameter.shape[-1]) ** -0.5 if parameter.ndim else 1.0)


def _base_config(name: ModelName) -> tuple[dict[str, Any], dict[str, Any] | None]:
    if name.config_path is None:
        import open_clip

        return dict(open_clip.get_model_config(name.architecture)), None
    content = _read_json(name.config_path)
    config, preprocess = content.get("model_cfg", content), content.get("preprocess_cfg")
    missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if key not in config]
    if missing:
        raise UnknownModel(f"{name.config_path} is no configuration of open_clip: it lacks {', '.join(missing)}")
    return deepcopy(config), preprocess


def _like_tag(config: dict[str, Any], architecture: str, tag: str, size: tuple[int, int]) -> Architecture:
    record = tag_config(architecture, tag)
    notes: tuple[str, ...] = ()
    # a tag says quick_gelu only where it is needed; an architecture that has it already stays as it is
    if record.get("quick_gelu") and not config.get("quick_gelu"):
        config = {**config, "quick_gelu": True}
        notes = (f"activation QuickGELU, as the weights {tag!r} were trained; {architecture} alone would use GELU",)
    preprocess = {key: record[key] for key in _PREPROCESS_KEYS if key in record}
    return Architecture(config, Preprocess.from_config(preprocess, size, f"open_clip's tag {tag!r}"), notes)


def _local(config: dict[str, Any], name: ModelName, path: Path, size: tuple[int, int]) -> Architecture:
    if name.like is not None:
        return _like_tag(config, name.architecture, name.like, size)
    sidecar = path.parent / SIDECAR
    if sidecar.is_file():
        content = _read_json(sidecar)
        beside = content.get("model_cfg", {})
        _check_same(config, beside, sidecar, name)
        if "quick_gelu" in beside or beside:
            config = {**config, "quick_gelu": bool(beside.get("quick_gelu", False))}
        if "preprocess_cfg" not in content:
            raise PreprocessMismatch(f"{sidecar} has no preprocess_cfg")
        return Architecture(config, Preprocess.from_config(content["preprocess_cfg"], size, f"{SIDECAR} beside it"), ())
    settings = {} if name.config_path is not None else _tag_settings(name.architecture, config)
    ways = {_frozen(preprocess) for preprocess, _ in settings.values()}
    gelus = {quick for _, quick in settings.values()}
    other_activation = bool(gelus - {bool(config.get("quick_gelu"))})
    if len(ways) > 1 or other_activation:
        what = [
            text for text, differs in (("preprocessing", len(ways) > 1), ("activation", other_activation)) if differs
        ]
        raise PreprocessMismatch(
            f"{path}: nothing says how these weights were trained, and open_clip's weights for {name.architecture} "
            f"differ in {' and '.join(what)}, from each other or from its plain configuration. Name weights that were "
            f"trained in the same way, as in openclip:{name.architecture}/{path}?like={next(iter(settings))} "
            f"(known: {some_of(list(settings))}), or put the {SIDECAR} of the weights beside them"
        )
    if settings:
        return _like_all_tags(config, name.architecture, settings, size)
    return Architecture(config, Preprocess.from_config({}, size, "defaults of open_clip"), ())


def _like_all_tags(
    config: dict[str, Any], architecture: str, settings: dict[str, tuple[dict[str, Any], bool]], size: tuple[int, int]
) -> Architecture:
    preprocess, _ = next(iter(settings.values()))
    source = f"all of open_clip's tags for {architecture}"
    return Architecture(config, Preprocess.from_config(preprocess, size, source), ())


def _tag_settings(architecture: str, config: dict[str, Any]) -> dict[str, tuple[dict[str, Any], bool]]:
    """For each known tag: its preprocessing and whether its weights need QuickGELU."""
    settings = {}
    for tag in tags_of(architecture):
        record = tag_config(architecture, tag)
        preprocess = {key: record[key] for key in _PREPROCESS_KEYS if key in record}
        # a tag says quick_gelu only where the plain architecture lacks it
        settings[tag] = (preprocess, bool(record.get("quick_gelu") or config.get("quick_gelu")))
    return settings


def _check_same(config: dict[str, Any], beside: dict[str, Any], sidecar: Path, name: ModelName) -> None:
    parts = [("", config, beside)]
    parts += [(f"{part}.", config.get(part, {}), beside.get(part, {})) for part in ("vision_cfg", "text_cfg")]
    for prefix, ours, theirs in parts:
        for key in sorted(set(ours) & set(theirs) - {"vision_cfg", "text_cfg", "quick_gelu"}):
            if ours[key] != theirs[key]:
                raise WeightsMismatch(
                    f"{sidecar} describes another architecture than {name.architecture}: "
                    f"{prefix}{key} is {theirs[key]!r} there and {ours[key]!r} here"
                )


def _image_size(config: dict[str, Any]) -> tuple[int, int]:
    size = config["vision_cfg"].get("image_size", 224)
    return (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UnknownModel(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise UnknownModel(f"{path} must hold a JSON object, it holds a {type(content).__name__}")
    return content


def _frozen(preprocess: dict[str, Any]) -> str:
    return json.dumps(preprocess, sort_keys=True)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
