"""Fitting: it learns, gives the best of what it held out, is the same again with the same seed, and survives a file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from csat_fusion import CompressionError
from csat_fusion.fitting import FitConfig, Fitted, fit, load_fitted

READINGS = ("published", "merged", "feature")


def make_windows(count: int = 24, frames: int = 6, patches: int = 8, width: int = 16, seed: int = 0) -> list[Tensor]:
    """Windows of a scene that drifts, half of which changes in the middle."""
    generator = torch.Generator().manual_seed(seed)
    windows = []
    for _ in range(count):
        base, seen = torch.randn(patches, width, generator=generator), []
        for t in range(frames):
            if t == frames // 2:
                base[: patches // 2] = torch.randn(patches // 2, width, generator=generator)
            base = base + 0.1 * torch.randn(patches, width, generator=generator)
            seen.append(base)
        windows.append(torch.cat(seen))
    return windows


def options(reading: str) -> dict[str, Any]:
    return {"reading": reading, "rows": 4 if reading == "feature" else 8, "heads": 2, "steps": 40, "batch": 4}


@pytest.mark.parametrize("averaging", [False, True])
def test_a_learnt_measurement_beats_the_random_one_it_began_with(averaging: bool) -> None:
    fitted = fit(make_windows(), **options("published") | {"steps": 150}, averaging=averaging)
    assert fitted.step > 0
    assert fitted.error_after < 0.85 * fitted.error_before
    assert fitted.error_after < 0.9  # better than the mean token, which a random signed one is not
    assert averaging or fitted.error_before > 1
    if averaging:
        assert fitted.key_measurement is not None
        phi = fitted.key_measurement.matrix()
        assert bool((phi >= 0).all())
        torch.testing.assert_close(phi.sum(dim=1), torch.ones(len(phi), dtype=phi.dtype))


@pytest.mark.parametrize("reading", READINGS)
def test_what_is_kept_is_never_worse_than_untrained_and_is_what_was_reported(reading: str) -> None:
    looks: list[float] = []

    def progress(step: int, loss: float, error: float) -> None:
        assert math.isfinite(loss)
        if not math.isnan(error):
            looks.append(error)

    # A rate that breaks everything: the untrained state must win.
    broken = fit(make_windows(), **options(reading), learning_rate=50.0, progress=progress)
    assert broken.error_after == min([broken.error_before, *looks])
    good = fit(make_windows(), **options(reading))
    assert good.error_after <= good.error_before
    assert not good.training


@pytest.mark.parametrize("reading", READINGS)
def test_a_seed_decides_everything(reading: str) -> None:
    torch.manual_seed(5)
    one = fit(make_windows(), **options(reading), seed=3)
    state = torch.random.get_rng_state()
    torch.manual_seed(6)
    again = fit(make_windows(), **options(reading), seed=3)
    other = fit(make_windows(), **options(reading), seed=4)
    torch.manual_seed(5)
    fit(make_windows(), **options(reading), seed=3)
    assert torch.equal(state, torch.random.get_rng_state())  # nobody else's dice were thrown
    for name, value in one.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert (one.error_before, one.error_after, one.step) == (again.error_before, again.error_after, again.step)
    assert one.error_before != other.error_before


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("denoiser", [True, False])
def test_a_checkpoint_gives_the_same_fit(reading: str, denoiser: bool, tmp_path: Path) -> None:
    if reading == "merged" and not denoiser:
        with pytest.raises(CompressionError, match="nothing to learn but its denoiser"):
            fit(make_windows(), **options(reading), denoiser=False)
        return
    windows = make_windows()
    fitted = fit(windows, **options(reading), denoiser=denoiser)
    fitted.save(tmp_path / "fit.safetensors")
    loaded = load_fitted(tmp_path / "fit.safetensors")
    assert loaded.config == fitted.config
    assert (loaded.error_before, loaded.error_after, loaded.step) == (
        fitted.error_before,
        fitted.error_after,
        fitted.step,
    )
    tokens = torch.stack(windows[:3])
    found = loaded(tokens[:, :5], tokens, tokens)
    assert torch.equal(found, fitted(tokens[:, :5], tokens, tokens))
    assert found.shape == (3, 5, 16)
    assert [path.name for path in tmp_path.iterdir()] == ["fit.safetensors"]


@pytest.mark.parametrize("reading", READINGS)
def test_what_was_learnt_goes_into_a_cross_attention(reading: str) -> None:
    windows = make_windows()
    fitted = fit(windows, **options(reading))
    attention = fitted.cross_attention(32, 4)  # other widths, heads as wide
    assert attention.denoiser is not fitted.denoiser  # a copy: training it leaves the fit alone
    tokens = torch.randn(2, 48, 32)
    out, _ = attention(tokens[:, :3], tokens, tokens)
    assert out.shape == (2, 3, 32)
    if reading == "published":
        for mine, its in (
            (attention.measurement, fitted.key_measurement),
            (attention.value_measurement, fitted.value_measurement),
        ):
            assert mine is not its
            assert mine is not None
            assert its is not None
            assert torch.equal(mine.matrix(), its.matrix())
    with pytest.raises(CompressionError, match="heads of width 8"):
        fitted.cross_attention(32, 2)


@pytest.mark.parametrize("reading", READINGS)
def test_a_mean_that_all_tokens_share_changes_nothing(reading: str) -> None:
    """What is reported is what one gets: the centre that was learnt with goes along, into the file too."""
    windows = [window.double() for window in make_windows()]
    away = 5 * torch.randn(16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plain = fit(windows, **options(reading))
    moved = fit([window + away for window in windows], **options(reading))
    assert moved.error_after == pytest.approx(plain.error_after, rel=1e-6)
    tokens = torch.stack(windows[:3])
    there = tokens + away
    torch.testing.assert_close(
        moved(there[:, :5], there, there), plain(tokens[:, :5], tokens, tokens) + away, rtol=1e-6, atol=1e-6
    )


def test_a_caller_who_wants_no_gradients_gets_a_fit() -> None:
    with torch.no_grad():
        assert fit(make_windows(), **options("published")).step > 0


def test_progress_may_stop_it() -> None:
    seen: list[int] = []

    def progress(step: int, loss: float, error: float) -> bool:
        seen.append(step)
        return step == 7

    fit(make_windows(), **options("published"), progress=progress)
    assert seen == [1, 2, 3, 4, 5, 6, 7]


def test_windows_of_equal_tokens_give_zero_and_no_nan() -> None:
    fitted = fit([torch.ones(48, 16)] * 4, **options("merged"))
    assert fitted.error_before == 0
    assert fitted.error_after == 0
    assert all(bool(torch.isfinite(value).all()) for value in fitted.state_dict().values())


BAD = {
    "one window": ({"windows": make_windows(1)}, "at least 2 windows.*got 1"),
    "no tensor": ({"windows": [[1.0], [2.0]]}, "window 0 must be floating point.*got list"),
    "other shape": ({"windows": [torch.ones(4, 4), torch.ones(5, 4)]}, r"window 1 is .*\[5, 4\].*\[4, 4\]"),
    "not finite": ({"windows": [torch.ones(4, 4), torch.full((4, 4), math.nan)]}, "window 1 holds a value that is not"),
    "no reading": ({"reading": "printed"}, "reading must be one of published, merged, feature, got 'printed'"),
    "too many rows": ({"rows": 49}, "rows must be at most the 48 tokens of a window, got 49"),
    "too many features": ({"reading": "feature", "rows": 9}, "at most the 8 features of a head, got 9"),
    "no rows": ({"rows": 0}, "rows must be a whole number, at least 1, got 0"),
    "heads": ({"heads": 3}, "3 heads do not divide the width 16"),
    "no steps": ({"steps": 0}, "steps must be a whole number, at least 1, got 0"),
    "noise": ({"noise": -1.0}, "noise must be finite and at least 0, got -1"),
    "rate": ({"learning_rate": 0.0}, "learning_rate must be finite and above 0, got 0"),
    "hold out": ({"hold_out": 1.0}, "hold_out must be above 0 and below 1, got 1"),
    "scale": ({"scale": math.inf}, "scale must be finite and above 0, got inf"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_named(bad: str) -> None:
    change, message = BAD[bad]
    given = {"windows": make_windows(4)} | options("published") | change
    with pytest.raises(CompressionError, match=message):
        fit(**given)


def test_files_that_hold_no_fit_are_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "fit.safetensors"
    with pytest.raises(FileNotFoundError):
        load_fitted(path)
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(CompressionError, match="no safetensors file, or damaged"):
        load_fitted(path)
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(CompressionError, match="is a None of version None"):
        load_fitted(path)
    save_file({"a": torch.ones(2)}, path, {"format": "longreel-csat-fit", "version": "1", "config": "{}"})
    with pytest.raises(CompressionError, match="holds no fit that can be read"):
        load_fitted(path)
    Fitted(FitConfig("published", 4, 8, 16)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(CompressionError, match="no safetensors file, or damaged"):
        load_fitted(path)
