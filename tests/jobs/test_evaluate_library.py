"""``longreel evaluate --store``, with a model that knows its colours: alone, side by side, and swept."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from xml.etree import ElementTree

import click
import pytest
from PIL import Image

from encoders.errors import EncoderInputError, UnknownModel
from jobs.cli import evaluate_tables
from jobs.cli.main import cli
from jobs.comparing import Spec, layered, parse_specs, settings_of, sources_of
from jobs.errors import SettingsError, UsageError
from jobs.settings import RunSettings, load_settings
from pipeline.errors import (
    ExtraMissing,
    ModelMismatch,
    NotALibrary,
    OptionError,
    SourceNotFound,
    TruthError,
    UnknownVideo,
)
from pipeline.evaluation.moments import TruthMoment
from pipeline.evaluation.sweep import sweep_tape
from pipeline.library import Library
from tests.pipeline.evaluation import colours

if TYPE_CHECKING:
    from pipeline.evaluation.library import LibraryScores

FEW = "few=ingest.digest.vectors.frames_per_vector=64,ingest.segments.detector=none"


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TruthMoment]]:
    folder = tmp_path_factory.mktemp("films")
    return folder, colours.draw_library_of_films(folder)


@pytest.fixture(scope="module")
def truth(films: tuple[Path, list[TruthMoment]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = [
        {"video": m.video, "query": m.query, "start": span.start_seconds, "end": span.end_seconds}
        for m in films[1]
        for span in m.spans
    ]
    file = tmp_path_factory.mktemp("truth") / "moments.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture(scope="module")
def store(films: tuple[Path, list[TruthMoment]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library") / "colours"
    with Library.open(folder, model=colours.NAME) as library:
        assert [result.state for result in library.add(films[0])] == ["done", "done"]
    return folder


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made; a test may see that none is left."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def evaluate(*arguments: str | Path) -> int:
    code = cli.main(["evaluate", *map(str, arguments)], prog_name="longreel", standalone_mode=False)
    assert isinstance(code, int)
    return code


def test_a_library_is_judged(store: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scores.json"
    assert evaluate("--store", store, "--truth", truth, "--json", "--out", out) == 0
    said = capsys.readouterr()
    value = json.loads(said.out)
    assert value == json.loads(out.read_text())
    assert (value["queries"], value["model"], value["videos"]) == (4, colours.NAME, 2)
    for way in ("in_video", "in_library"):
        assert value[way]["R5@0.7"] == 100
        assert value[way]["chance"]["peak_inside"] < 40
    assert value["in_video"]["R1@0.7"] == value["in_video"]["peak_inside"] == 100
    assert value["in_library"]["R1@0.7"] < 100  # both films have these colours
    assert "asking" in said.err
    assert evaluate("--store", store, "--truth", truth, "--iou", "0.5", "--model", colours.NAME) == 0
    shown = capsys.readouterr().out
    assert "asked of the whole library" in shown
    assert "R1@0.5" in shown
    assert "R1@0.3" not in shown
    assert "4 queries, 2 videos" in shown
    assert "mean-pooled" in shown
    # 4 of 4, and as many by mean-pooled windows
    assert "peak inside: 51.0 to 100.0 at 95 %; right by one alone: library 0, mean-pooled 0 (no difference)" in shown


def test_runs_side_by_side(
    store: Path, truth: Path, scratch: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[colours.ColourModel] = []
    original = colours.ColourModel.__init__

    def counted(self: colours.ColourModel, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(colours.ColourModel, "__init__", counted)
    compared = [
        FEW,
        "one=ingest.digest.tokens.budget=1",
        "half=ingest.digest.tokens.compressor=uniform,ingest.digest.tokens.budget=1/2",
        "peak=search.fall=0",
        f"blind=model={colours.BLIND}",
        f"again={store}",
    ]
    options = [word for spec in compared for word in ("--compare", spec)]
    assert evaluate("--store", store, "--truth", truth, "--json", *options) == 0
    said = capsys.readouterr()
    value = json.loads(said.out)
    runs = {run["name"]: run for run in value["runs"]}
    assert list(runs) == ["colours", "few", "one", "half", "peak", "blind", "again"]
    assert runs["colours"]["in_video"]["R1@0.3"] == runs["again"]["in_video"]["R1@0.3"] == 100
    assert runs["few"]["vectors"] < runs["colours"]["vectors"]
    assert runs["few"]["in_video"]["R1@0.7"] < 100
    assert runs["peak"]["in_video"]["mean_iou"] < runs["colours"]["in_video"]["mean_iou"]
    assert runs["blind"]["model"] == colours.BLIND
    # Digested again as the library was, budgets of tokens change nothing but the token sets.
    assert runs["one"]["vectors"] == runs["half"]["vectors"] == runs["colours"]["vectors"]
    assert [name for name, run in runs.items() if "tokens" in run] == ["one", "half"]
    assert runs["one"]["tokens"]["tokens_per_hour"] < runs["half"]["tokens"]["tokens_per_hour"]
    assert runs["half"]["tokens"]["in_video"]["R1@0.3"] >= runs["one"]["tokens"]["in_video"]["R1@0.3"]
    assert runs["one"]["changed"] == ["ingest.digest.tokens.budget=1"]
    assert value["notes"] == []
    # The two that differ in tokens alone were decoded and encoded together; the others each for itself.
    passes = [model.frames for model in made if model.frames]
    assert len(passes) == 3
    assert "one+half: loading" in said.err
    assert list(scratch.glob("longreel*")) == []

    assert evaluate("--store", store, "--truth", truth, "--compare", compared[1]) == 0
    shown = capsys.readouterr().out
    assert "read out of token sets" in shown
    assert "one: ingest.digest.tokens.budget=1" in shown
    assert "R1@0.3, by chance" in shown
    assert "peak inside, queries won and lost to colours" in shown
    assert "+0 -0" in shown


def test_a_long_query_that_is_refused_is_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    scores = cast("LibraryScores", SimpleNamespace(model="tiny", refused=("dog " * 60, "cat", "cow", "hen")))
    evaluate_tables._refused(scores)
    shown = capsys.readouterr().out
    assert shown.startswith("4 queries of more words than tiny reads, counted as missed: 'dog dog")
    assert shown.endswith("...'; 'cat'; 'cow'; ...\n")
    assert len(shown) < 200


def test_the_dial(
    store: Path,
    truth: Path,
    scratch: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.setitem(sweep_tape.__kwdefaults__, "token_budgets", (None, 8))  # the whole range takes its time
    monkeypatch.setitem(sweep_tape.__kwdefaults__, "frames_per_vector", (2.0, 4.0))
    drawn = tmp_path / "dial.svg"
    assert evaluate("--store", store, "--truth", truth, "--sweep", "--plot", drawn, "--json") == 0
    value = json.loads(capsys.readouterr().out)
    assert value["vectors"][0]["in_video"]["R1@0.3"] == 100
    assert [point["budget"] for point in value["tokens"]] == [None, 8]
    assert ElementTree.parse(drawn).getroot().tag.endswith("svg")
    assert list(scratch.glob("longreel*")) == []
    picture = tmp_path / "dial.png"
    given = ["--sweep", "--plot", picture, "--set", f"model={colours.BLIND}", "--set", "encoder.device=cpu"]
    assert evaluate("--store", store, "--truth", truth, *given) == 0
    shown = capsys.readouterr().out
    assert "frames a vector" in shown
    assert "gives no patch tokens" in shown
    with Image.open(picture) as opened:
        assert opened.size[0] > 300


@pytest.mark.parametrize("way", [(), ("--sweep",), ("--compare", f"other=model={colours.BLIND}")])
def test_a_query_that_the_model_does_not_take_is_told_before_any_work(
    store: Path,
    truth: Path,
    scratch: Path,
    tmp_path: Path,
    way: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As the mark at the end of a text, of a tokenizer, is not taken."""
    original = colours.ColourModel.encode_text

    def encode_text(self: colours.ColourModel, texts: Any) -> Any:
        refuses = self.info.name == (colours.BLIND if "--compare" in way else colours.NAME)
        if refuses and any("<end>" in text for text in texts):
            raise EncoderInputError(f"{texts[0]!r} holds <end>")
        return original(self, texts)

    def record(*_: Any, **__: Any) -> None:
        raise AssertionError("a video is decoded")

    monkeypatch.setattr(colours.ColourModel, "encode_text", encode_text)
    monkeypatch.setattr("pipeline.evaluation.tape.record", record)
    lines = truth.read_text().splitlines()
    lines.append(json.dumps({**json.loads(lines[0]), "query": "red <end>"}))
    bad = tmp_path / "bad.jsonl"
    bad.write_text("\n".join(lines))
    with pytest.raises(TruthError) as caught:
        evaluate("--store", store, "--truth", bad, *way)
    assert str(caught.value).startswith(f"{bad}:{len(lines)}: 'red <end>' cannot be asked of ")
    assert not list(scratch.iterdir())
    if not way:
        assert "asking" not in capsys.readouterr().err


def test_what_is_refused(store: Path, truth: Path, scratch: Path, tmp_path: Path) -> None:
    named = ["--store", store, "--truth", truth]
    with pytest.raises(ModelMismatch, match=r"tiny: the vectors of .* python:tests.*--compare NAME=model=tiny"):
        evaluate(*named, "--model", "tiny")
    with pytest.raises(UsageError, match=r"--set ingest.sampling.fps=1: .*--compare NAME=ingest.sampling.fps=1"):
        evaluate(*named, "--set", "ingest.sampling.fps=1")
    with pytest.raises(UsageError, match="no library there; expected"):
        evaluate(*named, "--compare", "nowhere")
    with pytest.raises(UsageError, match="expected the folder of a library"):
        evaluate(*named, "--compare", "ingest.sampling.fps=1")
    with pytest.raises(UsageError, match="two runs are named 'colours'"):
        evaluate(*named, "--compare", str(store))
    with pytest.raises(SettingsError, match=r"--compare x: encoder\.model=tiny: unknown .* did you mean 'model'"):
        evaluate(*named, "--compare", "x=encoder.model=tiny")
    with pytest.raises(UnknownModel, match="--compare x: model 'openclip:no-such/model'"):
        evaluate(*named, "--compare", "x=model=openclip:no-such/model")
    with pytest.raises(OptionError, match="must end in"):
        evaluate(*named, "--sweep", "--plot", "dial.gif")
    with pytest.raises(OptionError, match="no such folder"):
        evaluate(*named, "--sweep", "--plot", tmp_path / "absent" / "dial.png")
    with pytest.raises(NotALibrary, match="no such folder"):
        evaluate("--store", tmp_path / "absent", "--truth", truth)
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"video": "c.mp4", "query": "red", "start": 0, "end": 1}))
    for more in ([], ["--sweep"], ["--compare", FEW]):
        with pytest.raises(UnknownVideo, match=r"1 of the 1 videos of the truth: no video 'c\.mp4'"):
            evaluate("--store", store, "--truth", other, *more)
    assert list(scratch.glob("longreel*")) == []


def test_without_matplotlib_the_extra_is_named(store: Path, truth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ExtraMissing, match=r"longreel\[evaluate\]"):
        evaluate("--store", store, "--truth", truth, "--sweep", "--plot", "dial.png")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_nothing_behind(
    store: Path, truth: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    seen: list[list[str]] = []

    def stop(self: Any, frames: Any, tokens: bool = False) -> None:
        seen.append([path.name for path in scratch.rglob("*.f32")])
        os.kill(os.getpid(), number)

    monkeypatch.setattr(colours.ColourModel, "encode", stop)
    with pytest.raises(click.Abort):  # what Ctrl-C is to click
        evaluate("--store", store, "--truth", truth, "--sweep")
    assert set(seen[0]) == {"embedding.f32", "tokens.f32"}
    assert list(scratch.glob("longreel*")) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


# -- the parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("a=model=tiny", Spec("a", overrides=("model=tiny",))),
        ("a=x.y=1,x.z=cosine 0.9", Spec("a", overrides=("x.y=1", "x.z=cosine 0.9"))),
        ("a=x.y=[1,2],z=u=v", Spec("a", overrides=("x.y=[1,2]", "z=u=v"))),
        ("1/4=ingest.digest.tokens.budget=1/4", Spec("1/4", overrides=("ingest.digest.tokens.budget=1/4",))),
    ],
)
def test_names_and_settings(text: str, spec: Spec) -> None:
    assert parse_specs([text], "own") == [spec]


@pytest.mark.parametrize("text", ["=model=tiny", "a=", "a=1", "a=model", "", "a=,b=1"])
def test_what_is_neither(text: str) -> None:
    with pytest.raises(UsageError, match="expected"):
        parse_specs([text], "own")


def test_specs_that_only_ask() -> None:
    assert parse_specs(["a=search.fall=1,search.oversample=2"], "")[0].asks_only
    assert not parse_specs(["a=search.fall=1,index.kind=flat"], "")[0].asks_only


def test_settings_are_found_again(store: Path, tmp_path: Path) -> None:
    with Library.open(store, create=False) as library:
        settings, notes = settings_of(library)
        assert (settings.ingest, settings.model, notes) == (RunSettings().ingest, colours.NAME, [])
        assert sorted(item.name for item in sources_of(library)) == ["a.mp4", "b.mp4"]
    film = colours.draw_colours(tmp_path / "c.mp4", [("red", 2)])
    changed = load_settings("dense", ["ingest.sampling.fps=3", f"model={colours.NAME}"])
    with Library.open(tmp_path / "library", model=colours.NAME) as library:
        library.add(film, options=changed.ingest)
        settings, notes = settings_of(library)
        assert settings == load_settings(overrides=[f"model={colours.NAME}"])
        assert "are not recorded; the defaults are used" in notes[0]
        with library.writing("test") as catalog:
            catalog.create_job("j1", {"settings": {"odd": 1}}, "longreel submit")
            catalog.create_job("j2", {"settings": changed.to_dict(), "address": None}, "longreel submit")
        assert settings_of(library) == (changed, [])
        assert layered(changed, ["ingest.digest.tokens.budget=7"]).ingest.digest.tokens.budget == 7
        assert layered(changed, ["search.fall=1"]).ingest == changed.ingest
        film.unlink()
        with pytest.raises(SourceNotFound, match=r"1 of the library's 1 videos .*c\.mp4"):
            sources_of(library)
