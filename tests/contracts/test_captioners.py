"""What every captioner keeps, whatever is behind it. A new one is one more entry in `CAPTIONERS`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from csat_fusion.tokens import TokenSet
from encoders.captioning import Caption, Captioner, CaptionerInfo, Wording, caption_pictures, load_captioner
from encoders.errors import EncoderClosed, EncoderInputError
from tests.encoders.cocas import token_set
from tests.encoders.models import pictures, write_config

CAPTIONERS = ["coca", "tiny", "python:tests.encoders.cocas:Teller"]
OPTIONS = {"device": "cpu", "precision": "fp32", "wording": Wording(beams=2, most_tokens=5)}


@pytest.fixture(scope="module", params=CAPTIONERS)
def captioner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captioner]:
    name = request.param
    if name == "coca":
        name = f"coca:{write_config(tmp_path_factory.mktemp('models'), name)}/random"
    with load_captioner(name, **OPTIONS) as loaded:  # type: ignore[arg-type]
        yield loaded


def sets_of(captioner: Captioner, *counts: int) -> list[TokenSet]:
    return [token_set(count, seed=i, width=captioner.info.token_width) for i, count in enumerate(counts)]


def test_it_is_a_captioner_and_says_what(captioner: Captioner) -> None:
    assert isinstance(captioner, Captioner)
    assert isinstance(captioner.info, CaptionerInfo)
    assert len(captioner.info.fingerprint) == 16
    assert captioner.info.token_width >= 1


def test_the_name_loads_the_same_captioner(captioner: Captioner) -> None:
    with load_captioner(captioner.info.name, **OPTIONS) as again:  # type: ignore[arg-type]
        assert again.info == captioner.info
        sets = sets_of(captioner, 3)
        assert again.caption(sets) == captioner.caption(sets)


def test_tokens_are_what_its_token_sets_are_made_of(captioner: Captioner) -> None:
    tokens = captioner.tokens(pictures(3))
    assert tokens.shape[0] == 3
    assert tokens.shape[2] == captioner.info.token_width
    assert tokens.dtype == torch.float32
    assert tokens.device.type == "cpu"
    tokens.add_(0.0)  # a normal tensor, not one that only inference mode may change
    assert len(captioner.tokens(pictures(0))) == 0


def test_one_caption_for_each_with_its_span(captioner: Captioner) -> None:
    sets = sets_of(captioner, 4, 1, 6)
    found = captioner.caption(sets, spans=[(0.0, 9.0), None, (0.0, 10.5)])
    assert all(isinstance(one, Caption) for one in found)
    spans = [(one.start_seconds, one.end_seconds) for one in found]
    assert spans == [(0.0, 9.0), sets[1].span, (0.0, 10.5)]
    for one in found:
        assert one.model == captioner.info.name
        assert one.confidence is None or 0 < one.confidence <= 1
        assert one.text == one.text.strip()
        assert "  " not in one.text
    assert captioner.caption([]) == []
    assert [(one.start_seconds, one.end_seconds) for one in captioner.caption(sets)] == [each.span for each in sets]


def test_captions_do_not_depend_on_their_batch_or_on_the_call(captioner: Captioner) -> None:
    sets, spans = sets_of(captioner, *range(1, 20)), [(0.0, 9.0 + i) for i in range(19)]
    before = torch.get_rng_state()
    together = captioner.caption(sets, spans=spans)
    assert torch.equal(before, torch.get_rng_state())
    for i in (0, 7, 18):
        (alone,) = captioner.caption(sets[i : i + 1], spans=spans[i : i + 1])
        assert alone.text == together[i].text
        assert alone.confidence == pytest.approx(together[i].confidence, abs=1e-4)


def test_sets_as_they_are_kept_will_do(captioner: Captioner) -> None:
    (one,) = sets_of(captioner, 5)
    kept = TokenSet.from_bytes(one.to_bytes())
    assert kept.dtype == torch.float16
    (caption,) = captioner.caption([kept], spans=[(0.0, 9.0)])
    assert isinstance(caption.text, str)


def test_pictures_are_captioned(captioner: Captioner) -> None:
    assert len(caption_pictures(captioner, pictures(2))) == 2


def test_wrong_token_sets_are_refused(captioner: Captioner) -> None:
    (good,) = sets_of(captioner, 3)
    wide = token_set(3, width=captioner.info.token_width + 1)
    broken = replace(good, tokens=good.tokens * torch.nan)
    for sets, spans in (([wide], None), ([broken], None), ([good], []), ([good], [(0.0, 1.0)] * 2)):
        with pytest.raises(EncoderInputError):
            captioner.caption(sets, spans=spans)  # type: ignore[arg-type]


@pytest.mark.parametrize("frames", [np.zeros((1, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8)])
def test_wrong_frames_are_refused(captioner: Captioner, frames: np.ndarray) -> None:
    with pytest.raises(EncoderInputError):
        captioner.tokens(frames)


def test_after_close_it_says_so(captioner: Captioner) -> None:
    other = load_captioner(captioner.info.name, **OPTIONS)  # type: ignore[arg-type]
    other.close()
    other.close()
    for call in (lambda: other.caption(sets_of(captioner, 2)), lambda: other.tokens(pictures(1))):
        with pytest.raises(EncoderClosed):
            call()
