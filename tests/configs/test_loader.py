"""Configuration: recipes and overrides over typed schemas; what the schema does not know is refused by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import configs
from jobs.errors import SettingsError
from jobs.settings import RunSettings, load_settings, settings_from_dict


@dataclass(frozen=True)
class Inner:
    enabled: bool = True
    limit: float = 3.0

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise ValueError(f"inner.limit is {self.limit}; allowed: 0 or more")


@dataclass(frozen=True)
class Outer:
    name: str = "x"
    inner: Inner = field(default_factory=Inner)


def test_defaults_overrides_and_types() -> None:
    assert configs.load(Outer) == Outer()
    changed = configs.load(Outer, overrides=["inner.limit=4", "name=gate", "inner.enabled=off"])
    assert changed == Outer("gate", Inner(False, 4.0))


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("inner.limmit=4", "did you mean 'inner.limit'"),
        ("limit=4", "did you mean 'inner.limit'"),
        ("inner.limit=abc", "could not be converted to Float"),
        ("inner.limit=-1", "allowed: 0 or more"),
        ("inner=3", "inner"),
        ("inner", "expected key=value"),
        ("=3", "expected key=value"),
        ("name=[1", "not valid YAML"),
    ],
)
def test_what_is_not_allowed_is_named(override: str, says: str) -> None:
    with pytest.raises(configs.ConfigError, match=says.replace("(", r"\(")):
        configs.load(Outer, overrides=[override])


@dataclass(frozen=True)
class WithNames:
    names: dict[str, Any] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)


def test_a_setting_may_hold_names_of_a_persons_own() -> None:
    changed = configs.load(WithNames, overrides=["names={top_k: 5}", "names.deep.er=x", "inner.limit=4"])
    assert changed == WithNames({"top_k": 5, "deep": {"er": "x"}}, Inner(True, 4.0))
    with pytest.raises(configs.ConfigError, match=r"unknown setting 'namess\.a'"):
        configs.load(WithNames, overrides=["namess.a=1"])


def test_files(tmp_path: Path) -> None:
    good = tmp_path / "good.yaml"
    good.write_text("inner:\n  limit: 7\n")
    assert configs.load(Outer, str(good)).inner.limit == 7
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    assert configs.load(Outer, str(empty)) == Outer()
    for content in ("inner: [unclosed", "- a\n- list\n", "just a word\n"):
        bad = tmp_path / "bad.yaml"
        bad.write_text(content)
        with pytest.raises(configs.ConfigError, match=r"bad\.yaml"):
            configs.load(Outer, str(bad))
    with pytest.raises(configs.ConfigError, match=r"missing\.yaml"):
        configs.load(Outer, str(tmp_path / "missing.yaml"))
    with pytest.raises(configs.ConfigError, match="there are: "):
        configs.load(Outer, "nosuchrecipe")


@pytest.mark.parametrize("name", configs.recipe_names())
def test_every_recipe_loads(name: str) -> None:
    assert isinstance(load_settings(name), RunSettings)


def test_settings_travel_as_plain_values() -> None:
    settings = load_settings("camera", ["workers.decoders=2", "ingest.digest.tokens.keep=true"])
    assert settings_from_dict(settings.to_dict()) == settings


def test_yaml_reads_back(tmp_path: Path) -> None:
    settings = load_settings("dense", ["ingest.sampling.fps=3"])
    path = tmp_path / "mine.yaml"
    path.write_text(configs.to_yaml(settings))
    assert load_settings(str(path)) == settings


def test_settings_errors_are_ours() -> None:
    with pytest.raises(SettingsError, match=r"ingest\.gate\.fine_threshold"):
        load_settings(overrides=["ingest.gate.fine_treshold=3"])
    with pytest.raises(SettingsError, match="allowed"):
        load_settings(overrides=["ingest.sampling.mode=some"])
