"""``ARCH/PRETRAINED``: what an OpenCLIP model's name means, without touching weights.

ARCH is an architecture of open_clip or the path of a JSON file with its configuration. PRETRAINED is one of open_clip's
tags for it, the path of a checkpoint, or ``random``. ``?like=TAG`` after a checkpoint says whose preprocessing and
activation it was trained with; ``?seed=N`` after ``random`` names other random weights.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encoders.errors import UnknownModel, WeightsUnavailable

__all__ = ["CHECKPOINT_SUFFIXES", "ModelName", "parse_name", "some_of", "tag_config", "tags_of"]

CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")


@dataclass(frozen=True)
class ModelName:
    """A parsed name. Exactly one of ``tag``, ``path`` and ``random`` says where the weights come from.

    ``bundled`` is the whole name of a model that comes with Longreel, whose ``path`` is nobody's business.
    """

    architecture: str
    config_path: Path | None
    tag: str | None
    path: Path | None
    random: bool
    like: str | None
    seed: int | None
    bundled: str | None = None

    @property
    def pretrained(self) -> str:
        if self.bundled is not None:
            return "bundled"
        if self.random:
            return f"random?seed={self.seed}" if self.seed else "random"
        if self.path is not None:
            return f"{self.path}?like={self.like}" if self.like else str(self.path)
        return str(self.tag)

    @property
    def full(self) -> str:
        """The name that loads the same model from any working directory."""
        if self.bundled is not None:
            return self.bundled
        return f"openclip:{self.config_path or self.architecture}/{self.pretrained}"


def parse_name(rest: str) -> ModelName:
    """Parse a model's name without its scheme.

    Raises:
        UnknownModel: for an unknown architecture or tag (the nearest are named), or options that do not fit.
        WeightsUnavailable: for a checkpoint path where there is no file.
    """
    body, mark, query = rest.rpartition("?")
    option, equals, value = query.partition("=")
    if not mark or not equals or option not in ("like", "seed"):
        body, option, value = rest, "", ""
    config_path: Path | None = None
    if ".json/" in body:
        head, _, pretrained = body.partition(".json/")
        config_path = Path(head + ".json").expanduser().absolute()
        architecture = Path(head).name
        if not config_path.is_file():
            raise UnknownModel(f"model 'openclip:{rest}': there is no file {config_path}")
    else:
        architecture, _, pretrained = body.partition("/")
        _check_architecture(rest, architecture, pretrained)
    known = [] if config_path else tags_of(architecture)
    if not pretrained:
        raise UnknownModel(
            f"model 'openclip:{rest}' must say which weights: openclip:{architecture}/PRETRAINED, with "
            f"{_choices(known)}the path of a checkpoint, or 'random' for a trial"
        )
    if option == "like" and value not in known:
        raise UnknownModel(f"?like={value}: {architecture} has no such tag{_near(value, known)}")
    if option == "seed" and (not value.isdigit() or pretrained != "random"):
        raise UnknownModel(f"?seed={value} needs a whole number, and belongs to 'random' weights only")
    like = value if option == "like" else None
    if pretrained == "random":
        if like:
            raise UnknownModel("?like belongs to a checkpoint's path, not to 'random' weights")
        return ModelName(architecture, config_path, None, None, True, None, int(value) if option == "seed" else None)
    tag = re.sub("-", "_", pretrained.lower())  # open_clip reads tags so
    if tag in known:
        if like:
            raise UnknownModel("?like belongs to a checkpoint's path, not to a tag")
        return ModelName(architecture, config_path, tag, None, False, None, None)
    path = Path(pretrained).expanduser().absolute()
    if path.is_file():
        return ModelName(architecture, config_path, None, path, False, like, None)
    if "/" in pretrained or pretrained.startswith((".", "~")) or pretrained.endswith(CHECKPOINT_SUFFIXES):
        what = "is a folder, name the checkpoint inside it" if path.is_dir() else "does not exist"
        raise WeightsUnavailable(f"model 'openclip:{rest}': the checkpoint {path} {what}")
    raise UnknownModel(
        f"model 'openclip:{rest}': {architecture} has no weights {pretrained!r}{_near(pretrained, known)}; known are "
        f"{_choices(known)}the path of a checkpoint, or 'random' for a trial"
    )


def tags_of(architecture: str) -> list[str]:
    """open_clip's tags of pretrained weights for an architecture."""
    import open_clip

    return [str(tag) for tag in open_clip.list_pretrained_tags_by_model(architecture)]


def tag_config(architecture: str, tag: str) -> dict[str, Any]:
    """open_clip's record of a tag: ``hf_hub``, ``url``, preprocessing, and ``quick_gelu`` where the weights need it."""
    import open_clip

    return dict(open_clip.get_pretrained_cfg(architecture, tag))


def some_of(items: list[str], most: int = 3) -> str:
    """The first few of a list, for a message, and how many more there are."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")


def _check_architecture(rest: str, architecture: str, pretrained: str) -> None:
    import open_clip

    known = [str(name) for name in open_clip.list_models()]
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=3, cutoff=0.5)
        lowered = [name for name in known if name.lower() == architecture.lower()]
        hint = ", ".join(f"openclip:{name}/{pretrained or 'PRETRAINED'}" for name in (lowered or near))
        raise UnknownModel(
            f"model 'openclip:{rest}': open_clip has no architecture {architecture!r}"
            + (f"; near ones: {hint}" if hint else "; `longreel models list` shows all")
        )


def _near(value: str, known: list[str]) -> str:
    near = difflib.get_close_matches(value, known, n=3, cutoff=0.5)
    return f" (near: {', '.join(near)})" if near else ""


def _choices(known: list[str]) -> str:
    return f"one of the tags {some_of(known, 6)}, " if known else ""
