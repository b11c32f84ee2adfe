"""The gate sees small things, forgives swaying and noise, and never holds for ever."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import OptionError
from pipeline.gate import Gate, GateOptions

Picture = npt.NDArray[np.uint8]


def room(seed: int = 0, height: int = 224, width: int = 398) -> Picture:
    """A wall and a floor with some texture, so that there is something to match."""
    generator = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float64)
    picture[:] = np.linspace(90, 150, width)[None, :, None]
    picture[height // 2 :] -= 40
    picture += generator.normal(0, 6, (height // 8, width // 8, 1)).repeat(8, 0).repeat(8, 1)[:1, :1]
    return picture.clip(0, 255).astype(np.uint8)


def with_person(picture: Picture, left: int, top: int, height: int, width: int, level: int = 240) -> Picture:
    changed = picture.copy()
    changed[top : top + height, left : left + width] = level
    return changed


def test_first_frame_passes_and_the_same_again_does_not() -> None:
    gate = Gate(GateOptions())
    assert gate.passes(room(), 0.0)
    assert not gate.passes(room(), 0.5)


@pytest.mark.parametrize("left", [12, 150, 380])
@pytest.mark.parametrize("top", [5, 100, 200])
def test_a_person_far_away_opens_the_gate(left: int, top: int) -> None:
    # 10 x 20 of 398 x 224 pixels: a person that takes a tenth of the picture's height.
    gate = Gate(GateOptions())
    gate.passes(room(), 0.0)
    assert gate.passes(with_person(room(), left, top, 20, 10), 0.5)


def test_a_person_who_leaves_opens_the_gate() -> None:
    gate = Gate(GateOptions())
    gate.passes(with_person(room(), 200, 80, 60, 24), 0.0)
    assert gate.passes(room(), 0.5)


def test_swaying_on_the_spot_does_not() -> None:
    gate = Gate(GateOptions())
    gate.passes(with_person(room(), 200, 80, 60, 24, level=20), 0.0)
    assert not gate.passes(with_person(room(), 206, 82, 60, 24, level=20), 0.5)


def test_walking_on_does_though_each_step_is_small() -> None:
    gate = Gate(GateOptions())
    gate.passes(with_person(room(), 100, 80, 60, 24), 0.0)
    passed = [gate.passes(with_person(room(), 100 + 6 * i, 80, 60, 24), 0.5 * i) for i in range(1, 12)]
    assert not passed[0]
    assert any(passed)


@given(seed=st.integers(0, 1000), level=st.floats(0, 6))
@settings(max_examples=25, deadline=None)
def test_noise_of_the_sensor_does_not_open_it(seed: int, level: float) -> None:
    gate = Gate(GateOptions())
    generator = np.random.default_rng(seed)
    gate.passes(room(), 0.0)
    noisy = (room() + generator.normal(0, level, room().shape)).clip(0, 255).astype(np.uint8)
    assert not gate.passes(noisy, 0.5)


def test_it_holds_for_a_bounded_time() -> None:
    gate = Gate(GateOptions(hold_seconds=3.0))
    passed = [t / 2 for t in range(20) if gate.passes(room(), t / 2)]
    assert passed == [0.0, 3.0, 6.0, 9.0]


def test_switched_off_it_passes_everything() -> None:
    gate = Gate(GateOptions(enabled=False))
    assert all(gate.passes(room(), t / 2) for t in range(5))


def test_another_picture_size_passes() -> None:
    gate = Gate(GateOptions())
    gate.passes(room(), 0.0)
    assert gate.passes(room(height=224, width=224), 0.5)


def test_reset_forgets_the_anchor() -> None:
    gate = Gate(GateOptions())
    gate.passes(room(), 0.0)
    gate.reset()
    assert gate.passes(room(), 0.5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("fine_threshold", -1), ("coarse_threshold", 256), ("displacement", 0.5), ("hold_seconds", 0)],
)
def test_options_are_checked(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=name):
        GateOptions(**{name: value})
