"""The command that fits: from videos to a checkpoint, and what it says when it cannot."""

from __future__ import annotations

from pathlib import Path

import fit_csat
import pytest

from csat_fusion.fitting import load_fitted
from tests.drawing import draw_video

COLOURS = ["--model", "python:tests.encoders.models:MeanColour", "--quiet", "--device", "cpu", "--heads", "1"]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(draw_video(tmp_path_factory.mktemp("film") / "film.mp4", frames=200, rate=10))


def test_from_videos_to_a_checkpoint(film: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "fit.safetensors"
    code = fit_csat.main(
        [film, *COLOURS, "--fps", "5", "--window", "2", "--rows", "1/2", "--steps", "10", "--out", str(out)]
    )
    said = capsys.readouterr().out
    assert code == 0, said
    fitted = load_fitted(out)
    assert (fitted.config.reading, fitted.config.rows, fitted.config.tokens, fitted.config.width) == (
        "published",
        5,
        10,
        3,
    )
    assert "published: 5 of 10, 1 heads, 10 windows, 2 held out" in said
    assert f"| untrained | {fitted.error_before:.3f} |" in said
    assert f"learnt, step {fitted.step} | {fitted.error_after:.3f} |" in said
    assert "| merged, untrained |" in said


def test_what_cannot_be_is_said_in_a_line(film: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "fit.safetensors")
    for more, message in (
        (["--window", "60", "--out", out], "0 windows of 60 s at 2 frames a second; at least 2"),
        (["--rows", "cosine 0.9", "--out", out], "--rows must be a number or a share"),
        (["--rows", "many", "--out", out], "got 'many'"),
        (["--out", str(tmp_path / "no" / "fit.safetensors")], "there is no folder"),
        (["--heads", "0", "--out", out], "--heads must be at least 1, got 0"),
        (["--window", "0", "--out", out], "--fps and --window must be above 0"),
    ):
        assert fit_csat.main([film, *COLOURS, *more]) == 1
        assert message in capsys.readouterr().err
    assert fit_csat.main([str(tmp_path / "no.mp4"), *COLOURS, "--out", out]) == 1
    assert "no.mp4" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
