"""A CoCa model of open_clip as a :class:`encoders.captioning.Captioner`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import torch

from csat_fusion.tokens import TokenSet
from encoders.captioning import Caption, CaptionerInfo, CaptionerOptions, KeyFrame, Wording, tidy
from encoders.errors import CaptionerUnavailable, EncoderClosed, EncoderInputError, TokensUnavailable, UnknownModel
from encoders.openclip import times
from encoders.openclip.decoder import CocaDecoder
from encoders.openclip.encoder import OpenClipEncoder
from encoders.openclip.generation import Marks, write
from encoders.openclip.stepping import check_steps
from encoders.openclip.streaming import StreamingCaptioner
from encoders.openclip.visual import padded
from encoders.registry import load_encoder
from encoders.streams import StreamingOptions

__all__ = ["CocaCaptioner", "load_coca", "load_tiny"]

_BATCH = 16  # segments that are captioned side by side


class CocaCaptioner:
    """Captions by CoCa's decoder; takes over ``encoder``, and closes it.

    Args:
        name: what loads it again.
        attention: what the decoder attends through, see :class:`encoders.openclip.decoder.CocaDecoder`.

    Raises:
        CaptionerUnavailable: the model has no caption decoder, or one of a kind that is not known here.
    """

    def __init__(
        self, encoder: OpenClipEncoder, name: str, wording: Wording, *, budget: int = 256, attention: str = "csat"
    ) -> None:
        ends = encoder.tokenizer.ends
        if ends is None:
            raise CaptionerUnavailable(f"{name}: its tokenizer is not open_clip's own, and cannot write captions")
        decoder = CocaDecoder(encoder.model, attention=attention, budget=budget).requires_grad_(False).eval()
        check_steps(decoder)
        self._encoder = encoder
        self._decoder: CocaDecoder | None = decoder
        self._wording = wording
        # what is padded with is never written: it was no target in training
        self._marks = Marks(*ends, never=(int(decoder.model.pad_id),))
        self._info = CaptionerInfo(
            name=name,
            fingerprint=_fingerprint(encoder.info.fingerprint, attention, budget, wording),
            random=encoder.info.random,
            reads=encoder.info.fingerprint if _reads_its_tokens(encoder) else "",
            token_width=decoder.width,
            context_length=decoder.context_length,
            image_height=encoder.info.image_height,
            image_width=encoder.info.image_width,
            device=encoder.info.device,
        )

    @property
    def info(self) -> CaptionerInfo:
        return self._info

    def tokens(self, frames: npt.NDArray[np.uint8]) -> torch.Tensor:
        self._open()
        return self._encoder.decoder_tokens(frames)

    def caption(
        self,
        token_sets: Sequence[TokenSet | None],
        *,
        spans: Sequence[tuple[float, float] | None] | None = None,
        key_frames: Sequence[Sequence[KeyFrame]] | None = None,
    ) -> list[Caption]:
        decoder = self._open()
        info = self._info
        sets: list[TokenSet] = []
        for i, one in enumerate(token_sets):
            if one is None:
                raise EncoderInputError(f"there is no token set {i}; {info.name} reads nothing else")
            sets.append(one)
            if one.width != info.token_width:
                raise EncoderInputError(
                    f"token set {i} has tokens of width {one.width}, {info.name} reads {info.token_width}"
                )
            if not bool(torch.isfinite(one.tokens).all()):
                raise EncoderInputError(f"token set {i} holds a token that is not finite")
        if spans is not None and len(spans) != len(sets):
            raise EncoderInputError(f"there are {len(sets)} token sets and {len(spans)} spans")
        captions = []
        for start in range(0, len(sets), _BATCH):
            part = [one.to(dtype=torch.float32) for one in sets[start : start + _BATCH]]
            within = [None for _ in part] if spans is None else spans[start : start + _BATCH]
            written = write(decoder, padded(part, within), self._marks, self._wording)
            for one, span, sentence in zip(part, within, written, strict=True):
                text = tidy(self._encoder.tokenizer.decode(sentence.ids), full_stop=self._wording.full_stop)
                captions.append(Caption(text, *(span or one.span), info.name, sentence.confidence))
        return captions

    def streams(self, options: StreamingOptions | None = None) -> StreamingCaptioner:
        """Captions of any number of streams, from states that do not grow; see
        :class:`encoders.streams.CaptionsStreams`.

        Raises:
            EncoderClosed.
        """
        return StreamingCaptioner(
            self._open(),
            self._marks,
            lambda ids: tidy(self._encoder.tokenizer.decode(ids), full_stop=self._wording.full_stop),
            self._info.name,
            wording=self._wording,
            options=options,
        )

    def close(self) -> None:
        self._decoder = None
        self._encoder.close()

    def __enter__(self) -> CocaCaptioner:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> CocaDecoder:
        if self._decoder is None:
            raise EncoderClosed(f"the captioner {self._info.name} was closed")
        return self._decoder


def load_tiny(rest: str, options: CaptionerOptions) -> CocaCaptioner:
    """The bundled model.

    Raises:
        UnknownModel: something after its name.
    """
    if rest:
        raise UnknownModel(f"captioner 'tiny:{rest}': the bundled captioner is called 'tiny', and nothing more")
    return _load("tiny", "tiny", options)


def load_coca(rest: str, options: CaptionerOptions) -> CocaCaptioner:
    """A CoCa model of open_clip, named as its encoder is without ``openclip:``."""
    if not rest:
        raise UnknownModel("captioner 'coca' must say which model: coca:ARCH/PRETRAINED")
    return _load(f"openclip:{rest}", "", options)


def _load(encoder_name: str, name: str, options: CaptionerOptions) -> CocaCaptioner:
    load = options.load
    encoder = load_encoder(
        encoder_name,
        device=load.device,
        precision=load.precision,
        batch_size=load.batch_size,
        seed=load.seed,
        threads=load.threads,
        progress=load.progress,
    )
    try:
        assert isinstance(encoder, OpenClipEncoder)
        name = name or encoder.info.name.replace("openclip:", "coca:", 1)
        return CocaCaptioner(encoder, name, options.wording, budget=options.budget)
    except BaseException:
        encoder.close()
        raise


def _reads_its_tokens(encoder: OpenClipEncoder) -> bool:
    """The decoder reads the very tokens that the encoder gives, and not a summary of them."""
    height, width = encoder.info.image_height, encoder.info.image_width
    slope = np.linspace(0, 255, height * width * 3).astype(np.uint8).reshape(1, height, width, 3)
    read = encoder.decoder_tokens(slope)
    try:
        given = encoder.encode(slope, tokens=True).tokens
    except TokensUnavailable:
        return False
    return given is not None and given.shape == read.shape and bool(torch.allclose(given, read, rtol=1e-2, atol=1e-2))


def _fingerprint(encoder: str, attention: str, budget: int, wording: Wording) -> str:
    content = {
        "format": 1,
        "encoder": encoder,
        "attention": [attention, budget],
        "amplitude": times.AMPLITUDE,
        "wording": {
            name: value for name, value in asdict(wording).items() if name != "samples" or wording.method == "best-of"
        },
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
