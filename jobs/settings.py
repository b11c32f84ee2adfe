"""The whole run configuration: the small options of each part, put together, filled from recipes and ``--set``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from encoders.captioning import Wording
from encoders.vlm.options import VlmOptions
from jobs.errors import SettingsError
from pipeline.errors import OptionError
from pipeline.index_kinds import IndexOptions
from pipeline.ingest import IngestOptions
from pipeline.live.options import LiveSettings
from pipeline.search import SearchOptions
from pipeline.sources.redact import redact_word

if TYPE_CHECKING:
    from encoders.captioning import Captioner

__all__ = [
    "DEFAULT_MODEL",
    "CaptionSettings",
    "EncoderOptions",
    "RunSettings",
    "WorkerOptions",
    "load_settings",
    "settings_from_dict",
]

DEFAULT_MODEL = "openclip:ViT-B-32/laion2b_s34b_b79k"


@dataclass(frozen=True)
class EncoderOptions:
    """How the model runs; "auto" and 0 are measured or chosen at start. See ``encoders.load_encoder``."""

    device: str = "auto"
    precision: str = "auto"
    batch_size: int = 0
    threads: int = 0
    seed: int = 0


@dataclass(frozen=True)
class WorkerOptions:
    """What the stages of a batch job ask of Ray. Counts of 0 are chosen from what the cluster has.

    ``encode_gpus`` and ``caption_gpus`` below 0: where the cluster has GPUs one for each encoder, or one for an encoder
    and a captioner together; else none. A captioner behind an address needs none. Captioners are started for jobs that
    make captions.
    ``attempts``: how often a part is tried when its worker process dies (a broken file is not tried again).
    """

    decoders: int = 0
    decode_cpus: float = 1.0
    decode_memory_bytes: int = 0
    encoders: int = 0
    encode_cpus: float = 1.0
    encode_gpus: float = -1.0
    encode_memory_bytes: int = 0
    captioners: int = 0
    caption_cpus: float = 1.0
    caption_gpus: float = -1.0
    caption_memory_bytes: int = 0
    attempts: int = 3
    object_store_bytes: int = 512 * 1024**2

    def __post_init__(self) -> None:
        for name in (
            *("decoders", "encoders", "captioners"),
            *("decode_memory_bytes", "encode_memory_bytes", "caption_memory_bytes"),
        ):
            if getattr(self, name) < 0:
                raise OptionError(f"workers.{name} is {getattr(self, name)}; allowed: 0 (automatic) or more")
        for name in ("decode_cpus", "encode_cpus", "caption_cpus"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise OptionError(f"workers.{name} is {value}; allowed: more than 0")
        if self.attempts < 1:
            raise OptionError(f"workers.attempts is {self.attempts}; allowed: 1 or more")
        if self.object_store_bytes < 80 * 1024**2:
            raise OptionError(
                f"workers.object_store_bytes is {self.object_store_bytes}; allowed: {80 * 1024**2} (80 MiB) or more"
            )


@dataclass(frozen=True)
class CaptionSettings:
    """Captions that a batch job makes of what it indexes. ``model`` is the captioner's name; empty: none are made.

    ``budget`` and ``wording`` are for captioners that run here, ``vlm`` for those behind an address; how device and
    precision are chosen is as for the encoder.
    """

    model: str = ""
    budget: int = 256
    wording: Wording = field(default_factory=Wording)
    vlm: VlmOptions = field(default_factory=VlmOptions)

    def __post_init__(self) -> None:
        if redact_word(self.model) != self.model:
            raise OptionError("captions.model: its address holds a password; allowed: a key in an environment variable")

    def load(self, options: EncoderOptions) -> Captioner:
        """The captioner.

        Raises:
            EncoderError: no such captioner, no weights, wrong weights, an option outside what is allowed.
        """
        from encoders.captioning import load_captioner

        return load_captioner(
            self.model,
            device=options.device,
            precision=options.precision,
            batch_size=options.batch_size,
            seed=options.seed,
            threads=options.threads,
            budget=self.budget,
            wording=self.wording,
            vlm=self.vlm,
        )


@dataclass(frozen=True)
class RunSettings:
    """Everything that a command may be told."""

    model: str = DEFAULT_MODEL
    ingest: IngestOptions = field(default_factory=IngestOptions)
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    captions: CaptionSettings = field(default_factory=CaptionSettings)
    workers: WorkerOptions = field(default_factory=WorkerOptions)
    index: IndexOptions = field(default_factory=IndexOptions)
    search: SearchOptions = field(default_factory=SearchOptions)
    live: LiveSettings = field(default_factory=LiveSettings)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for a job's record."""
        return asdict(self)


def load_settings(config: str = "default", overrides: Sequence[str] = ()) -> RunSettings:
    """A recipe or YAML file, then ``key=value`` overrides.

    Raises:
        SettingsError: for anything that the settings do not allow.
    """
    import configs

    try:
        return configs.load(RunSettings, config, overrides)
    except configs.ConfigError as error:
        raise SettingsError(str(error)) from error


def settings_from_dict(values: dict[str, Any]) -> RunSettings:
    """The inverse of :meth:`RunSettings.to_dict`."""

    def build(kind: Any, inner: dict[str, Any]) -> Any:
        import dataclasses
        import typing

        hints = typing.get_type_hints(kind)
        made = {}
        for entry in dataclasses.fields(kind):
            if entry.name not in inner:
                continue  # a setting that is newer than the record keeps its default
            value, hint = inner[entry.name], hints[entry.name]
            made[entry.name] = build(hint, value) if dataclasses.is_dataclass(hint) else value
        return kind(**made)

    built = build(RunSettings, values)
    assert isinstance(built, RunSettings)
    return built
