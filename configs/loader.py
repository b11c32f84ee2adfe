"""Loads a recipe over a typed schema, and refuses what the schema does not know."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["ConfigError", "load", "recipe_names", "recipe_text", "to_yaml"]

T = TypeVar("T")


class ConfigError(ValueError):
    """A recipe, key or value that the schema does not allow; the message names it and what was allowed."""


def recipe_names() -> list[str]:
    """The named recipes that ship with Longreel."""
    folder = resources.files("configs.recipes")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """A named recipe's YAML.

    Raises:
        ConfigError: when there is none of that name.
    """
    if name not in recipe_names():
        raise ConfigError(f"no recipe {name!r}{_nearest(name, recipe_names())}; there are: {', '.join(recipe_names())}")
    return resources.files("configs.recipes").joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def load(schema: type[T], name_or_file: str = "default", overrides: Sequence[str] = ()) -> T:
    """Build a ``schema`` (a dataclass with defaults) from a named recipe or a YAML file, then ``key=value`` overrides.

    Raises:
        ConfigError: for an unknown recipe, an unreadable file, an unknown key (the nearest known one is named), a value
        of
            the wrong type, or one that the dataclass itself refuses.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    config = OmegaConf.structured(schema)
    kinds = dict(_keys(schema))
    known = sorted(kinds)
    free = tuple(f"{key}." for key, kind in kinds.items() if typing.get_origin(kind) is dict)  # names of a person's own
    for origin, layer in [_recipe(name_or_file), *(_override(text) for text in overrides)]:
        if layer is None:
            continue
        if not isinstance(layer, DictConfig):
            raise ConfigError(f"{origin}: expected settings as `key: value`, got a {type(layer).__name__}")
        for key in _leaves(OmegaConf.to_container(layer, resolve=False)):
            if not key.startswith(free) and not any(key == k or k.startswith(key + ".") for k in known):
                raise ConfigError(f"{origin}: unknown setting {key!r}{_nearest(key, known)}")
        try:
            config = OmegaConf.merge(config, layer)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{origin}: {_first_line(error)}") from error
    try:
        built = OmegaConf.to_object(config)
    except OmegaConfBaseException as error:
        raise ConfigError(_first_line(error)) from error
    except ValueError as error:  # raised by the dataclass's own check
        raise ConfigError(str(error)) from error
    assert isinstance(built, schema)
    return built


def to_yaml(value: Any) -> str:
    """A dataclass as YAML, in the form that :func:`load` reads."""
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.structured(value))


def _recipe(name_or_file: str) -> tuple[str, Any]:
    from omegaconf import OmegaConf

    path = Path(name_or_file)
    if path.suffix in {".yaml", ".yml"} or "/" in name_or_file:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the configuration {name_or_file}: {error}") from error
        origin = name_or_file
    else:
        origin, text = f"recipe {name_or_file}", recipe_text(name_or_file)
    if not text.strip():
        return origin, None
    return origin, _create(origin, lambda: OmegaConf.create(text))


def _override(text: str) -> tuple[str, Any]:
    from omegaconf import OmegaConf

    origin = f"--set {text}"
    key, equals, _ = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"{origin}: expected key=value, for example --set ingest.sampling.fps=1")
    return origin, _create(origin, lambda: OmegaConf.from_dotlist([text]))


def _create(origin: str, make: Any) -> Any:
    import yaml
    from omegaconf.errors import OmegaConfBaseException

    try:
        return make()
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(f"{origin}: not valid YAML: {_first_line(error)}") from error


def _keys(schema: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each setting and its type."""
    hints = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            yield from _keys(kind, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, kind


def _leaves(value: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{prefix}.{key}" if prefix else str(key))
    elif prefix:
        yield prefix


def _nearest(word: str, known: Sequence[str]) -> str:
    """ ", did you mean X?": one or two keys that end in the same word, else one alike as a whole, else one whose last
    word is alike."""
    last = word.rpartition(".")[2]
    near = sorted((k for k in known if k.rpartition(".")[2] == last), key=lambda k: (k.count("."), k))
    if len(near) not in (1, 2):  # a right name in a wrong place is surer than a likeness
        near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if not near:
        by_last = {k.rpartition(".")[2]: k for k in known}
        near = [by_last[k] for k in difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.6)]
    return f", did you mean {' or '.join(map(repr, near))}?" if near else ""


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    keys = [line.removeprefix("full_key:").strip() for line in lines if line.startswith("full_key:")]
    text = lines[0] if lines else type(error).__name__
    return f"{keys[0]}: {text}" if keys and keys[0] else text
