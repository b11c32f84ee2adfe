"""Captioners by name, and what becomes of their words."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csat_fusion.tokens import TokenSet
from encoders.captioning import Captioner, CaptionerOptions, Wording, caption_pictures, load_captioner, tidy
from encoders.errors import (
    CaptionerUnavailable,
    EncoderClosed,
    EncoderOptionError,
    UnknownModel,
    WeightsUnavailable,
)
from encoders.openclip.captioner import CocaCaptioner
from encoders.registry import load_encoder
from encoders.streams import CaptionsStreams, StreamingOptions, StreamPush
from tests.encoders.cocas import token_set
from tests.encoders.models import pictures, write_config


def no_captioner(options: CaptionerOptions) -> Any:
    return options


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, encoders.captioning; print([m for m in ('torch', 'open_clip') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tiney", "did you mean 'tiny'"),
        ("openclip:ViT-B-32/random", "no captioners are named 'openclip'"),
        ("", "there are tiny, coca:"),
        ("tiny:big", "called 'tiny'"),
        ("coca", "which model"),
        ("coca:coca_ViT-B-33/random", "coca_ViT-B-32"),
        ("python:tests.encoders.cocas:Nobody", "no callable 'Nobody'"),
        ("python:tests.encoders.test_captioning:no_captioner", "is no Captioner"),
        (7, "got int"),
    ],
)
def test_names_that_mean_no_captioner(name: Any, said: str) -> None:
    with pytest.raises(UnknownModel, match=said):
        load_captioner(name)


def test_options_are_checked() -> None:
    for wrong in ({"budget": 0}, {"budget": True}, {"seed": -1}, {"precision": "fp8"}, {"device": "abacus"}):
        with pytest.raises(EncoderOptionError, match=next(iter(wrong))):
            load_captioner("coca:coca_ViT-B-32/random", **wrong)  # type: ignore[arg-type]


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    config = write_config(tmp_path, "coca")
    with pytest.raises(WeightsUnavailable, match="does not exist"):
        load_captioner(f"coca:{config}/{tmp_path / 'gone.safetensors'}")


def test_a_model_that_cannot_caption_is_refused_and_let_go(tmp_path: Path) -> None:
    config = write_config(tmp_path, "vit")
    with pytest.raises(CaptionerUnavailable, match="CLIP has no caption decoder"):
        load_captioner(f"coca:{config}/random", device="cpu")
    encoder = load_encoder(f"openclip:{config}/random", device="cpu", precision="fp32")
    with pytest.raises(CaptionerUnavailable):
        CocaCaptioner(encoder, "x", Wording())  # type: ignore[arg-type]
    encoder.close()


def test_what_decides_the_words_decides_the_fingerprint(tmp_path: Path) -> None:
    config = write_config(tmp_path, "coca")
    made = {}
    for key, name, options in (
        ("plain", "random", {}),
        ("again", "random", {"batch_size": 3}),
        ("seed", "random?seed=2", {}),
        ("budget", "random", {"budget": 9}),
        ("wording", "random", {"wording": Wording("greedy")}),
        ("unread", "random", {"wording": Wording(samples=3)}),
        ("samples", "random", {"wording": Wording("best-of", samples=3)}),
        ("more", "random", {"wording": Wording("best-of", samples=4)}),
    ):
        with load_captioner(f"coca:{config}/{name}", device="cpu", precision="fp32", **options) as captioner:  # type: ignore[arg-type]
            made[key] = captioner.info
    assert made["plain"].fingerprint == made["again"].fingerprint == made["unread"].fingerprint
    assert len({info.fingerprint for info in made.values()}) == 6
    assert made["seed"].name.endswith("random?seed=2")
    assert made["plain"].random
    # its decoder reads a summary of the patches, not the patches
    assert made["plain"].reads == ""


@pytest.fixture(scope="module")
def tiny() -> Any:
    with load_captioner("tiny", device="cpu", precision="fp32", wording=Wording(most_tokens=4)) as captioner:
        yield captioner


def test_the_bundled_captioner_reads_the_tokens_of_the_bundled_encoder(tiny: Captioner) -> None:
    with load_encoder("tiny", device="cpu", precision="fp32") as encoder:
        assert tiny.info.reads == encoder.info.fingerprint
        assert tiny.info.token_width == encoder.info.token_width
        frames = pictures(2)
        assert bool((encoder.encode(frames, tokens=True).tokens == tiny.tokens(frames)).all())
    assert not tiny.info.random
    assert tiny.info.name == "tiny"


def test_pictures_are_captioned_as_stills(tiny: Captioner) -> None:
    captions = caption_pictures(tiny, pictures(2))
    assert [(one.start_seconds, one.end_seconds, one.model) for one in captions] == [(0.0, 1.0, "tiny")] * 2
    assert caption_pictures(tiny, pictures(0)) == []


def test_the_times_of_tokens_are_read_where_there_is_a_segment(tiny: Captioner) -> None:
    one = token_set(6, width=tiny.info.token_width)
    backwards = replace(one, start_seconds=9 - one.end_seconds, end_seconds=9 - one.start_seconds)

    def confidence(of: TokenSet, span: tuple[float, float] | None) -> float | None:
        return tiny.caption([of], spans=[span])[0].confidence

    assert confidence(one, None) == pytest.approx(confidence(backwards, None), rel=1e-5)
    assert confidence(one, (0.0, 9.0)) != pytest.approx(confidence(one, None), rel=1e-3)
    assert confidence(one, (0.0, 9.0)) != pytest.approx(confidence(backwards, (0.0, 9.0)), rel=1e-3)


def test_a_captioner_captions_streams(tiny: Captioner) -> None:
    """The first push is captioned as a segment is; streams do not hear of each other."""
    assert isinstance(tiny, CocaCaptioner)
    one = token_set(6, width=tiny.info.token_width)
    (wanted,) = tiny.caption([one], spans=[(0.0, 9.0)])
    assert isinstance(tiny, CaptionsStreams)
    for streams in (tiny.streams(), tiny.streams(StreamingOptions(budget=6))):
        (found,) = streams.push([StreamPush("a", one, (0.0, 9.0))])
        assert (found.text, found.model) == (wanted.text, "tiny")
        assert found.confidence == pytest.approx(wanted.confidence, abs=1e-4)


def test_closing_closes_the_encoder_too(tmp_path: Path) -> None:
    captioner = load_captioner(f"coca:{write_config(tmp_path, 'coca')}/random", device="cpu", precision="fp32")
    captioner.close()
    with pytest.raises(EncoderClosed):
        captioner.tokens(pictures(1))
    with pytest.raises(EncoderClosed):
        captioner.streams()  # type: ignore[attr-defined]


# -- tidy words --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_text", "wanted"),
    [
        ("a dog runs . ", "A dog runs"),
        (" two  men , one 's hat ( red ) falls !", "Two men, one's hat (red) falls"),
        ("it isn 't \ufffd here", "It isn't here"),
        ("... ", ""),
        ("", ""),
        ("éclair", "Éclair"),
    ],
)
def test_sentences_look_like_sentences(given_text: str, wanted: str) -> None:
    assert tidy(given_text) == wanted
    assert tidy(given_text, full_stop=True) == (wanted + "." if wanted else "")


@given(st.text(max_size=40))
def test_tidy_words_stay_tidy(text: str) -> None:
    once = tidy(text)
    assert "  " not in once
    assert once == once.strip()
    assert tidy(once) == once
    assert "\x00" not in once
