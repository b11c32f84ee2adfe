"""Runs that are judged side by side: what a person names, the settings that a library was made with, and the work.

A run is a library that is there, or the videos of one digested again under other settings. Runs that decode and encode
alike share one tape, so that ten budgets of a compressor cost one pass over the videos.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csat_fusion.errors import LongreelError
from jobs.errors import SettingsError, UsageError
from jobs.settings import RunSettings, load_settings, settings_from_dict
from pipeline.errors import SourceNotFound
from pipeline.evaluation.library import LibraryScores, Progress, encode_queries, evaluate_library
from pipeline.evaluation.moments import TruthMoment
from pipeline.evaluation.runs import Judge, TokenScores
from pipeline.store import Store

if TYPE_CHECKING:
    from encoders.base import Encoder
    from pipeline.library import Library
    from pipeline.sources import SourceItem

__all__ = [
    "Comparison",
    "Plan",
    "Run",
    "Spec",
    "compare",
    "layered",
    "load_model",
    "parse_specs",
    "plan",
    "settings_of",
    "sources_of",
    "working_folder",
]

_TOKENS = "ingest.digest.tokens."
_EXPECTED = (
    "expected the folder of a library, NAME=FOLDER, or NAME=KEY=VALUE,KEY=VALUE..., "
    "for example tome=ingest.digest.tokens.compressor=tome"
)


@dataclass(frozen=True)
class Spec:
    """A run as it was named: the library in ``store``, or else settings to change."""

    name: str
    store: Path | None = None
    overrides: tuple[str, ...] = ()

    def changes(self, *prefixes: str) -> bool:
        """Whether a setting is changed that begins with one of these."""
        return any(text.startswith(prefixes) for text in self.overrides)

    @property
    def asks_only(self) -> bool:
        """Whether the library itself can be asked: only how it is searched differs."""
        return all(text.startswith("search.") for text in self.overrides)


@dataclass(frozen=True)
class Run:
    """A run judged. ``tokens`` where settings of token sets are part of it."""

    name: str
    changed: tuple[str, ...]
    scores: LibraryScores
    tokens: TokenScores | None = None

    def to_dict(self) -> dict[str, Any]:
        value = {"name": self.name, "changed": list(self.changed), **self.scores.to_dict()}
        return value if self.tokens is None else {**value, "tokens": self.tokens.to_dict()}


@dataclass
class Comparison:
    """What the runs have in common, and how one of them is done."""

    truth: Sequence[TruthMoment]
    limit: int
    thresholds: Sequence[float]
    device: str | None
    folder: Path
    progress: Progress
    _tapes: int = field(default=0, repr=False)

    def judge(self, settings: RunSettings, progress: Progress) -> Judge:
        """Judges libraries that are made for the purpose."""
        return Judge(
            self.truth, self.folder, self.limit, self.thresholds, settings.index, settings.search, progress=progress
        )

    def named(self, name: str) -> Progress:
        """The progress of the run ``name``."""
        return lambda what, done, total: self.progress(f"{name}: {what}", done, total)

    def tape_folder(self) -> Path:
        self._tapes += 1
        folder = self.folder / f"tape-{self._tapes}"
        folder.mkdir()
        return folder


def parse_specs(texts: Sequence[str], taken: str) -> list[Spec]:
    """What ``--compare`` was given; ``taken`` is the name of the run that they stand beside.

    Raises:
        UsageError: neither a library nor settings; a name that is there twice.
    """
    specs = [_parse(text) for text in texts]
    names = Counter([taken, *(spec.name for spec in specs)])
    for spec in specs:
        if names[spec.name] > 1:
            raise UsageError(
                f"--compare: two runs are named {spec.name!r}; give each a name of its own, as in other={spec.name}"
            )
    return specs


def _parse(text: str) -> Spec:
    if Store.exists(text) or "=" not in text:
        if not Store.exists(text):
            raise UsageError(f"--compare {text!r}: no library there; {_EXPECTED}")
        return Spec(Path(text).resolve().name, store=Path(text))
    name, _, rest = text.partition("=")
    if Store.exists(rest):
        return Spec(name, store=Path(rest))
    parts = re.split(r",(?=[A-Za-z_][\w.]*=)", rest)  # a value may hold commas
    if not name.strip() or any(not re.match(r"[A-Za-z_][\w.]*=", part) for part in parts):
        raise UsageError(f"--compare {text!r}: {_EXPECTED}")
    return Spec(name, overrides=tuple(parts))


def settings_of(library: Library) -> tuple[RunSettings, list[str]]:
    """The settings that most of a library's videos were made with, and what is to be said about them.

    They are found among the settings of the library's jobs, and the defaults, by the recipe that each video bears.
    """
    keys = Counter(video.recipe_key for video in library.videos() if video.vectors)
    fingerprint = library.manifest.fingerprint
    best, most = None, 0
    for job in library.catalog.jobs():
        try:
            settings = settings_from_dict(job.config["settings"])
        except (KeyError, TypeError, ValueError):  # recorded by another version of us
            continue
        found = keys[settings.ingest.recipe_key(fingerprint)]
        if found > most:
            best, most = settings, found
    default = RunSettings()
    if keys[default.ingest.recipe_key(fingerprint)] > most:
        best, most = default, keys[default.ingest.recipe_key(fingerprint)]
    total = sum(keys.values())
    notes = []
    if best is None:
        best = default
        notes.append(f"{library.path}: the settings that it was made with are not recorded; the defaults are used")
    elif most < total:
        notes.append(f"{library.path}: {total - most} of {total} videos were made with other settings than the rest")
    return replace(best, model=library.model), notes


def layered(base: RunSettings, overrides: Sequence[str], what: str = "--set") -> RunSettings:
    """``base`` with ``key=value`` changes; ``what`` names them in messages.

    Raises:
        SettingsError: as :func:`jobs.settings.load_settings`.
    """
    if not overrides:
        return base
    import configs

    with tempfile.TemporaryDirectory(prefix="longreel-settings-") as folder:
        file = Path(folder) / "base.yaml"
        file.write_text(configs.to_yaml(base), encoding="utf-8")
        try:
            return load_settings(str(file), overrides)
        except SettingsError as error:
            raise SettingsError(str(error).replace("--set", what, 1)) from error


def sources_of(library: Library) -> list[SourceItem]:
    """The videos of a library as they may be submitted again.

    Raises:
        SourceNotFound: files are gone; names all of them.
    """
    from pipeline.sources import SourceItem
    from pipeline.sources.redact import is_remote

    records = [video for video in library.videos() if video.vectors]
    gone = [video.uri for video in records if not is_remote(video.uri) and not Path(video.uri).exists()]
    if gone:
        raise SourceNotFound(
            f"{len(gone)} of the library's {len(records)} videos are no longer there, so they cannot be digested "
            f"again: {', '.join(gone[:5])}{', ...' if len(gone) > 5 else ''}"
        )
    return [SourceItem(video.uri, video.name, video.tags, video.start_time) for video in records]


@contextmanager
def working_folder() -> Iterator[Path]:
    """A folder for tapes and libraries that live as long as the command; Ctrl-C and SIGTERM leave none behind."""
    from jobs.runner import sigterm_as_ctrl_c

    with sigterm_as_ctrl_c(), tempfile.TemporaryDirectory(prefix="longreel-evaluate-") as folder:
        yield Path(folder)


def load_model(settings: RunSettings, device: str | None) -> Encoder:
    """The model of a run, as a submit with these settings loads it.

    Raises:
        EncoderError
    """
    from encoders import load_encoder

    options = settings.encoder
    return load_encoder(
        settings.model,
        device=device or options.device,
        precision=options.precision,
        batch_size=options.batch_size,
        seed=options.seed,
        threads=options.threads,
    )


@dataclass(frozen=True)
class Plan:
    """What is to be compared with the library at ``path``: its videos again, under the ``settings`` of each spec."""

    path: Path
    specs: tuple[Spec, ...]
    settings: tuple[RunSettings, ...]
    items: tuple[SourceItem, ...]

    @property
    def again(self) -> list[int]:
        """The specs for which the videos are digested again."""
        return _again(self.specs)


def plan(library: Library, specs: Sequence[Spec], base: RunSettings) -> Plan:
    """Check everything that can be checked before work is done; ``base`` are the settings that specs change.

    Raises:
        SettingsError: a setting that is not allowed.
        EncoderError: a model that no table knows.
        SourceNotFound: a video to be digested again is gone.
    """
    settings = tuple(layered(base, spec.overrides, f"--compare {spec.name}:") for spec in specs)
    again = _again(specs)
    for i in again:
        _check_model(settings[i].model, specs[i].name)
    return Plan(library.path, tuple(specs), settings, tuple(sources_of(library) if again else ()))


def _again(specs: Sequence[Spec]) -> list[int]:
    return [i for i, spec in enumerate(specs) if spec.store is None and not spec.asks_only]


def compare(work: Comparison, planned: Plan) -> list[Run]:
    """Judge every spec; the results stand in their order. The library's own run is the caller's.

    Raises:
        SourceError: a video cannot be digested again.
        ModelMismatch, NotALibrary, UnknownVideo, EncoderError, and what judging raises.
    """
    specs, settings, again = planned.specs, planned.settings, planned.again
    runs: dict[int, Run] = {}

    def add(i: int, scores: LibraryScores, tokens: TokenScores | None = None) -> None:
        changed = specs[i].overrides if specs[i].store is None else (str(specs[i].store),)
        runs[i] = Run(specs[i].name, changed, scores, tokens)

    for i, spec in enumerate(specs):
        if i not in again:
            add(i, _judge_store(work, spec, settings[i], planned.path))
    groups: dict[str, list[int]] = {}
    for i in again:
        groups.setdefault(_tape_key(settings[i]), []).append(i)
    for members in groups.values():
        for i, scores, tokens in _judge_again(work, planned.items, [(i, specs[i], settings[i]) for i in members]):
            add(i, scores, tokens)
    return [runs[i] for i in range(len(specs))]


def _judge_store(work: Comparison, spec: Spec, settings: RunSettings, path: Path) -> LibraryScores:
    from pipeline.library import Library

    with Library.open(
        spec.store or path,
        create=False,
        device=work.device or settings.encoder.device,
        index_options=settings.index,
        search_options=settings.search,
    ) as library:
        return evaluate_library(
            library, work.truth, limit=work.limit, thresholds=work.thresholds, progress=work.named(spec.name)
        )


def _judge_again(
    work: Comparison, items: Sequence[SourceItem], members: Sequence[tuple[int, Spec, RunSettings]]
) -> Iterator[tuple[int, LibraryScores, TokenScores | None]]:
    """Judge runs that can share a tape."""
    from pipeline.evaluation.readout import fit_readout
    from pipeline.evaluation.tape import record

    names = "+".join(spec.name for _, spec, _ in members)
    tokens = {i for i, spec, settings in members if settings.ingest.digest.tokens.keep or spec.changes(_TOKENS)}
    first = members[0][2]
    work.progress(f"{names}: loading {first.model}", 0, None)
    with ExitStack() as stack:
        encoder = stack.enter_context(load_model(first, work.device))
        encode_queries(encoder, work.truth)  # what it does not take is said before anything is decoded
        tape = stack.enter_context(
            record(encoder, items, first.ingest, work.tape_folder(), tokens=bool(tokens), progress=work.named(names))
        )
        readout = fit_readout(tape) if tokens else None
        for i, spec, settings in members:
            judge = work.judge(settings, work.progress)
            digest = settings.ingest.digest
            scores = judge.vectors(tape, encoder, digest, spec.name)
            read = None
            if readout is not None and i in tokens:
                read = judge.tokens(tape, encoder, digest, readout, f"{spec.name}, token sets")
            yield i, scores, read


def _tape_key(settings: RunSettings) -> str:
    """What of the settings decides a tape."""
    values = asdict(settings.ingest)
    del values["digest"]
    return json.dumps([settings.model, asdict(settings.encoder), values], sort_keys=True)


def _check_model(model: str, name: str) -> None:
    """Refuse a model that no table knows before hours of work, not after."""
    from encoders import describe_model

    if model.startswith("python:"):
        return  # known only once it is loaded
    try:
        describe_model(model)
    except LongreelError as error:
        raise type(error)(f"--compare {name}: {error}") from error
