"""Without `--model` the configured default is used; where its weights cannot be had, nothing else is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from encoders.bundled.files import Bundle
from encoders.errors import UnknownModel, WeightsUnavailable
from jobs.cli.main import cli
from jobs.dry_run import print_estimate
from jobs.reporting import NullReporter
from jobs.runner import SubmitRequest, run_detached, run_submit
from jobs.settings import DEFAULT_MODEL, load_settings
from pipeline.catalog import Catalog
from pipeline.sources import SourceItem
from pipeline.store import Store
from tests.jobs.running import draw_film, environment, longreel, settings


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    # Read by the hub's client at its import, so the variables alone would come too late.
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(autouse=True)
def nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("the model cannot be had, and yet it goes on")

    monkeypatch.setattr("jobs.engine.start_ray", never)
    monkeypatch.setattr("jobs.dry_run._inspect", never)
    monkeypatch.setattr("jobs.runner.python_command", never)


def asked(store: Path, **changes: str) -> SubmitRequest:
    return SubmitRequest(store, (SourceItem("/no/such/film.mp4", "film.mp4"),), load_settings(), **changes)


def check(error: WeightsUnavailable) -> None:
    """Both ways on, in one line, and what the second one costs."""
    message = str(error)
    assert message.startswith(f"the weights of {DEFAULT_MODEL} ")
    assert f"`longreel models fetch {DEFAULT_MODEL}`" in message
    assert "`--model tiny`" in message
    for limit in Bundle("tiny").card().limits:
        assert limit in message
    assert "\n" not in message


def test_the_default_is_a_real_model_with_a_card() -> None:
    from encoders import describe_model

    assert load_settings().model == DEFAULT_MODEL
    model = describe_model(DEFAULT_MODEL)
    assert not model.random
    assert model.card.trained_on


def test_the_help_names_the_default() -> None:
    command = cli.get_command(None, "submit")  # type: ignore[arg-type]
    assert command is not None
    (option,) = [parameter for parameter in command.params if parameter.name == "model"]
    assert DEFAULT_MODEL in option.help  # type: ignore[attr-defined]


def test_a_job_stops_before_ray_and_before_any_video(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable) as caught:
        run_submit(asked(tmp_path / "store"), NullReporter())
    check(caught.value)
    assert not (tmp_path / "store").exists(), "nothing is left behind"


def test_a_job_of_a_library_without_a_model_fails_and_says_why(tmp_path: Path) -> None:
    Store.create(tmp_path / "store", DEFAULT_MODEL)
    with pytest.raises(WeightsUnavailable) as caught:
        run_submit(asked(tmp_path / "store"), NullReporter())
    check(caught.value)
    store = Store.open(tmp_path / "store")
    assert not store.is_bound
    store.check_name("tiny")  # the second way on: the same library with another model
    with Catalog(store.catalog_path) as catalog:
        (job,) = catalog.jobs()
        assert job.state == "failed"
        assert [error.message for error in catalog.errors(job.id)] == [str(caught.value)]
        assert catalog.videos() == []
    shown = longreel("jobs", "show", "--store", store.path).out
    assert "failed" in shown.splitlines()[0]
    assert "WeightsUnavailable: the weights of" in shown


def test_a_detached_job_is_not_even_begun(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable) as caught:
        run_detached(asked(tmp_path / "store"))
    check(caught.value)
    assert not (tmp_path / "store").exists()


def test_a_dry_run_looks_at_no_video(tmp_path: Path) -> None:
    with pytest.raises(WeightsUnavailable) as caught:
        print_estimate(asked(tmp_path / "store"), as_json=True)
    check(caught.value)


def test_a_slip_in_the_name_is_told_at_once_too(tmp_path: Path) -> None:
    from dataclasses import replace

    request = asked(tmp_path / "store")
    with pytest.raises(UnknownModel, match="comes with Longreel, only tiny"):
        run_detached(replace(request, settings=replace(request.settings, model="tinny")))


def test_a_cluster_has_caches_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="goes on"):
        run_submit(asked(tmp_path / "store", address="head:6379"), NullReporter())


@pytest.mark.ray
def test_without_a_network_the_bundled_model_indexes_and_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    env = environment(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hf"))
    film, store = draw_film(tmp_path / "films" / "film.mp4", 4, 0), tmp_path / "store"
    stopped = longreel("submit", film, "--store", store, "--json", env=env)
    assert stopped.code == 2
    assert stopped.error["type"] == "WeightsUnavailable"
    assert "`--model tiny`" in stopped.error["message"]

    ran = longreel("submit", film, "--store", store, "--model", "tiny", "--json", *settings(), env=env)
    assert ran.summary["done"] == 1, ran.err
    answer = longreel("query", "a dog runs", "--store", store, "--json", env=env)
    assert answer.code == 0, answer.err
    assert answer.value["model"] == "tiny"
    assert answer.value["moments"]
