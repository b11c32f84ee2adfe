"""What every captioner keeps, whatever is behind it. A new one is one more entry in `CAPTIONERS`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from csat_fusion.tokens import TokenSet
from encoders.captioning import Caption, Captioner, CaptionerInfo, KeyFrame, Wording, caption_pictures, load_captioner
from encoders.errors import EncoderClosed, EncoderInputError, TokensUnavailable
from encoders.vlm.options import VlmOptions
from tests.encoders.cocas import token_set
from tests.encoders.models import pictures, write_config
from tests.encoders.vlm_server import serving

CAPTIONERS = ["coca", "tiny", "vlm", "python:tests.encoders.cocas:Teller", "python:tests.encoders.cocas:Looker"]
OPTIONS = {
    "device": "cpu",
    "precision": "fp32",
    "wording": Wording(beams=2, most_tokens=5),
    "vlm": VlmOptions(key_variable=""),
}
Spans = Sequence[tuple[float, float] | None]


@pytest.fixture(scope="module", params=CAPTIONERS)
def captioner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captioner]:
    name = request.param
    with ExitStack() as stack:
        if name == "coca":
            name = f"coca:{write_config(tmp_path_factory.mktemp('models'), name)}/random"
        elif name == "vlm":
            name = stack.enter_context(serving()).name()
        yield stack.enter_context(load_captioner(name, **OPTIONS))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Material:
    """Segments as a captioner reads them; a captioner gets all of it, and leaves alone what it does not read."""

    token_sets: Sequence[TokenSet | None]
    key_frames: Sequence[Sequence[KeyFrame]]

    @classmethod
    def of(cls, captioner: Captioner, *counts: int) -> Material:
        """One segment for each of ``counts``, of so many tokens or pictures."""
        info = captioner.info
        shown = []
        for i, count in enumerate(counts):
            edges = np.linspace(0, 8, count + 1)
            images = pictures(count, seed=i)
            shown.append([KeyFrame(images[k], edges[k], edges[k], edges[k + 1]) for k in range(count)])
        if info.key_frames:
            return cls([None] * len(counts), shown)
        return cls([token_set(count, seed=i, width=info.token_width) for i, count in enumerate(counts)], shown)

    def __getitem__(self, one: slice) -> Material:
        return Material(self.token_sets[one], self.key_frames[one])

    @property
    def spans(self) -> list[tuple[float, float]]:
        """What the captions of stills span."""
        return [
            (frames[0].start_seconds, frames[-1].end_seconds) if tokens is None else tokens.span
            for tokens, frames in zip(self.token_sets, self.key_frames, strict=True)
        ]

    def captions(self, captioner: Captioner, spans: Spans | None = None) -> list[Caption]:
        return captioner.caption(self.token_sets, spans=spans, key_frames=self.key_frames)


def reads_tokens(captioner: Captioner) -> bool:
    return not captioner.info.key_frames


def test_it_is_a_captioner_and_says_what(captioner: Captioner) -> None:
    assert isinstance(captioner, Captioner)
    assert isinstance(captioner.info, CaptionerInfo)
    assert len(captioner.info.fingerprint) == 16
    assert (captioner.info.token_width >= 1) == reads_tokens(captioner)
    assert captioner.info.key_frames >= 0
    assert min(captioner.info.image_height, captioner.info.image_width) >= 1


def test_the_name_loads_the_same_captioner(captioner: Captioner) -> None:
    with load_captioner(captioner.info.name, **OPTIONS) as again:  # type: ignore[arg-type]
        assert again.info == captioner.info
        material = Material.of(captioner, 3)
        assert material.captions(again) == material.captions(captioner)


def test_tokens_are_what_its_token_sets_are_made_of(captioner: Captioner) -> None:
    if not reads_tokens(captioner):
        with pytest.raises(TokensUnavailable):
            captioner.tokens(pictures(3))
        return
    tokens = captioner.tokens(pictures(3))
    assert tokens.shape[0] == 3
    assert tokens.shape[2] == captioner.info.token_width
    assert tokens.dtype == torch.float32
    assert tokens.device.type == "cpu"
    tokens.add_(0.0)  # a normal tensor, not one that only inference mode may change
    assert len(captioner.tokens(pictures(0))) == 0


def test_one_caption_for_each_with_its_span(captioner: Captioner) -> None:
    material = Material.of(captioner, 4, 1, 6)
    found = material.captions(captioner, [(0.0, 9.0), None, (0.0, 10.5)])
    assert all(isinstance(one, Caption) for one in found)
    spans = [(one.start_seconds, one.end_seconds) for one in found]
    assert spans == [(0.0, 9.0), material.spans[1], (0.0, 10.5)]
    for one in found:
        assert one.model == captioner.info.name
        assert one.confidence is None or 0 < one.confidence <= 1
        assert one.text == one.text.strip()
        assert "  " not in one.text
    assert captioner.caption([]) == captioner.caption([], spans=[], key_frames=[]) == []
    assert [(one.start_seconds, one.end_seconds) for one in material.captions(captioner)] == material.spans


def test_captions_do_not_depend_on_their_batch_or_on_the_call(captioner: Captioner) -> None:
    material, spans = Material.of(captioner, *range(1, 20)), [(0.0, 9.0 + i) for i in range(19)]
    before = torch.get_rng_state()
    together = material.captions(captioner, spans)
    assert torch.equal(before, torch.get_rng_state())
    for i in (0, 7, 18):
        (alone,) = material[i : i + 1].captions(captioner, spans[i : i + 1])
        assert alone.text == together[i].text
        if together[i].confidence is None:
            assert alone.confidence is None
        else:
            assert alone.confidence == pytest.approx(together[i].confidence, abs=1e-4)


def test_sets_as_they_are_kept_will_do(captioner: Captioner) -> None:
    material = Material.of(captioner, 5)
    if (one := material.token_sets[0]) is not None:
        kept = TokenSet.from_bytes(one.to_bytes())
        assert kept.dtype == torch.float16
        material = replace(material, token_sets=[kept])
    (caption,) = material.captions(captioner, [(0.0, 9.0)])
    assert isinstance(caption.text, str)


def test_pictures_are_captioned(captioner: Captioner) -> None:
    assert len(caption_pictures(captioner, pictures(2))) == 2


def test_what_it_does_not_read_is_no_help(captioner: Captioner) -> None:
    """Key frames do not replace the token sets of one that reads those, nor the other way round."""
    material = Material.of(captioner, 2)
    sets: list[TokenSet | None] = [None] if reads_tokens(captioner) else [token_set(3)]
    frames = material.key_frames if reads_tokens(captioner) else None
    with pytest.raises(EncoderInputError):
        captioner.caption(sets, key_frames=frames)


def test_wrong_spans_are_refused(captioner: Captioner) -> None:
    for spans in ([], [(0.0, 1.0)] * 2, [(1.0, 1.0)], [(0.0, float("nan"))]):
        with pytest.raises(EncoderInputError):
            Material.of(captioner, 3).captions(captioner, spans)


def test_wrong_material_is_refused(captioner: Captioner) -> None:
    good = Material.of(captioner, 3)
    (tokens,), (frames,) = good.token_sets, good.key_frames
    if tokens is not None:
        wide = token_set(3, width=captioner.info.token_width + 1)
        wrong = [Material([one], [frames]) for one in (wide, replace(tokens, tokens=tokens.tokens * torch.nan))]
    else:
        flat = KeyFrame(frames[0].image[:, :, 0], 0.0, 0.0, 1.0)
        wrong = [Material([None], [one]) for one in ([], [flat])]
    for material in wrong:
        with pytest.raises(EncoderInputError):
            material.captions(captioner)


@pytest.mark.parametrize("frames", [np.zeros((1, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8)])
def test_wrong_frames_are_refused(captioner: Captioner, frames: np.ndarray) -> None:
    with pytest.raises(EncoderInputError):
        caption_pictures(captioner, frames)


def test_after_close_it_says_so(captioner: Captioner) -> None:
    material = Material.of(captioner, 2)
    other = load_captioner(captioner.info.name, **OPTIONS)  # type: ignore[arg-type]
    other.close()
    other.close()
    for call in (lambda: material.captions(other), lambda: other.tokens(pictures(1))):
        with pytest.raises(EncoderClosed):
            call()
