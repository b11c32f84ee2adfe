"""The interface of every captioner, their table, and the function that the rest of Longreel calls.

A captioner reads token sets, the compressed form of a segment, and says what happens in it. Nothing heavy is imported
here.

Shapes: T frames, H x W pixels, P tokens of a frame, d their width, m tokens of a token set.
"""

from __future__ import annotations

import difflib
import importlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt

from encoders.base import LoadOptions, ProgressCallback
from encoders.errors import EncoderOptionError, UnknownModel
from encoders.keyframes import KeyFrame, cover

if TYPE_CHECKING:
    import torch

    from csat_fusion.tokens import TokenSet
    from encoders.vlm.options import VlmOptions

__all__ = [
    "CAPTIONERS",
    "METHODS",
    "Caption",
    "Captioner",
    "CaptionerInfo",
    "CaptionerOptions",
    "KeyFrame",
    "Wording",
    "caption_pictures",
    "cover",
    "load_captioner",
    "split_captioner",
    "tidy",
]

METHODS = ("greedy", "beam", "nucleus", "best-of")

# scheme -> "module:function", called with the rest of the name and the options; imported on use. A new kind of
# captioner is one module and one line here.
CAPTIONERS: dict[str, str] = {
    "tiny": "encoders.openclip.captioner:load_tiny",
    "coca": "encoders.openclip.captioner:load_coca",
    "vlm": "encoders.vlm.captioner:load_vlm",
    "python": "encoders.python_door:load_captioner_at",
}


@dataclass(frozen=True)
class Caption:
    """Words for the half-open span ``[start_seconds, end_seconds)``.

    ``model`` is the captioner's name; ``confidence``, from 0 to 1, is the geometric mean of the probabilities of its
    text tokens, ``None`` where the captioner has none: how sure it was of its words, not how true they are.
    """

    text: str
    start_seconds: float
    end_seconds: float
    model: str
    confidence: float | None


@dataclass(frozen=True)
class CaptionerInfo:
    """What a captioner is.

    ``name`` loads it again. ``fingerprint`` is a short hash of all that decides its words. ``reads`` is the fingerprint
    of the encoder whose patch tokens it takes, so that token sets kept in a library with that encoder fit; empty where
    its tokens are its own and have to be made by :meth:`Captioner.tokens`. ``token_width`` is d. ``key_frames`` is how
    many pictures of a segment it wants to see at most; 0: it reads token sets, and no pictures. One that wants pictures
    reads no token sets, and its ``token_width`` is 0; pictures need not be larger than ``image_height`` and
    ``image_width``.
    """

    name: str
    fingerprint: str
    random: bool
    reads: str
    token_width: int
    context_length: int
    image_height: int
    image_width: int
    device: str
    key_frames: int = 0


@runtime_checkable
class Captioner(Protocol):
    """Says what happens in segments."""

    @property
    def info(self) -> CaptionerInfo: ...

    def tokens(self, frames: npt.NDArray[np.uint8]) -> torch.Tensor:
        """The tokens ``[T, P, d]`` of ``frames [T, H, W, 3]`` (uint8 RGB, upright) that its token sets are made of;
        float32, on the CPU.

        Raises:
            TokensUnavailable: it wants key frames.
            EncoderInputError, OutOfDeviceMemory, EncoderClosed.
        """
        ...

    def caption(
        self,
        token_sets: Sequence[TokenSet | None],
        *,
        spans: Sequence[tuple[float, float] | None] | None = None,
        key_frames: Sequence[Sequence[KeyFrame]] | None = None,
    ) -> list[Caption]:
        """A caption for each segment, given by its token set or its key frames, as ``info.key_frames`` says.

        Args:
            token_sets: one for each segment; ``None`` for all where the captioner wants key frames.
            spans: start and end in seconds of each segment, to which the times of its tokens are relative; ``None`` for
                one: it is a still picture, and its caption has the span of its tokens.
            key_frames: pictures of each segment, in order of time, the most covering ones (:func:`cover`); a captioner
                that wants none leaves them alone.

        Raises:
            EncoderInputError: sets of another width than it reads or that are not finite, spans or key frames that do
                not fit, or none of what it reads.
            EncoderError, EncoderClosed.
        """
        ...

    def close(self) -> None:
        """Let go of the weights. May be called twice."""
        ...

    def __enter__(self) -> Captioner: ...

    def __exit__(self, *exc: object) -> None: ...


@dataclass(frozen=True)
class Wording:
    """How words are chosen.

    Attributes:
        method: "greedy", "beam", "nucleus", or "best-of": the best of several nucleus samples by where the model looked
            while it wrote (:mod:`encoders.openclip.bestof`). The bundled model is no better for it than with "beam",
            and needs a temperature of about 0.5 to be as good.
        beams: K, of beam search.
        length_penalty: the power of the length that a log-probability is divided by; 0 prefers short sentences.
        no_repeat_ngram: no run of so many text tokens comes twice; 0 allows it.
        full_stop: a sentence ends with one.
        least_tokens, most_tokens: of a sentence, marks apart; ``most_tokens`` 0 is what the context holds.
        top_p: the share of probability that nucleus sampling draws from, likeliest first.
        temperature: of nucleus sampling.
        samples: of "best-of".
        seed: of nucleus sampling; each window draws from its own beginning, whatever stands beside it.

    Raises:
        EncoderOptionError: a value outside what is allowed.
    """

    method: str = "beam"
    beams: int = 4
    length_penalty: float = 1.0
    no_repeat_ngram: int = 3
    least_tokens: int = 1
    most_tokens: int = 0
    full_stop: bool = False
    top_p: float = 0.9
    temperature: float = 1.0
    seed: int = 0
    samples: int = 8

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise EncoderOptionError(f"method is {self.method!r}; allowed: {', '.join(METHODS)}")
        numbers = ("no_repeat_ngram", "least_tokens", "most_tokens", "seed")
        for name, least in (("beams", 1), ("samples", 1), *((name, 0) for name in numbers)):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise EncoderOptionError(f"{name} is {number!r}; allowed: a whole number, at least {least}")
        if self.most_tokens and self.most_tokens < self.least_tokens:
            raise EncoderOptionError(f"most_tokens {self.most_tokens} is below least_tokens {self.least_tokens}")
        if not math.isfinite(self.length_penalty):
            raise EncoderOptionError(f"length_penalty is {self.length_penalty}; allowed: a finite number")
        if not 0 < self.top_p <= 1:
            raise EncoderOptionError(f"top_p is {self.top_p}; allowed: above 0, at most 1")
        if not (0 < self.temperature < math.inf):
            raise EncoderOptionError(f"temperature is {self.temperature}; allowed: above 0")


@dataclass(frozen=True)
class CaptionerOptions:
    """The options of :func:`load_captioner`; defaults are written there. Those of ``load`` are checked on use."""

    load: LoadOptions
    wording: Wording
    budget: int
    vlm: VlmOptions | None = None


def load_captioner(
    name: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 0,
    seed: int = 0,
    threads: int = 0,
    budget: int = 256,
    wording: Wording | None = None,
    vlm: VlmOptions | None = None,
    progress: ProgressCallback | None = None,
) -> Captioner:
    """Load the captioner ``name``: ``tiny``, ``coca:ARCH/PRETRAINED`` such as
    ``coca:coca_ViT-B-32/mscoco_finetuned_laion2b_s13b_b90k``, or ``vlm:MODEL@URL`` such as
    ``vlm:qwen2.5vl:7b@http://localhost:11434/v1``.

    ``budget`` is how many raw tokens it attends to at most (those of a token set are merged already). ``wording`` says
    how words are chosen; both are for captioners that run here, and ``vlm`` for one behind an address. The rest is as
    for :func:`encoders.load_encoder`; ``precision`` is that of the image tower.

    Raises:
        EncoderOptionError: for an option outside what is allowed.
        UnknownModel: for a name that no table knows.
        CaptionerUnavailable: the model cannot caption.
        WeightsUnavailable, WeightsDamaged, WeightsMismatch, PreprocessMismatch, DeviceUnavailable, OutOfDeviceMemory.
    """
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise EncoderOptionError(f"budget must be a whole number of tokens, at least 1, got {budget!r}")
    scheme, rest = split_captioner(name)
    load = LoadOptions(device, precision, batch_size, seed, threads, progress)
    module, _, function = CAPTIONERS[scheme].partition(":")
    make = cast(Callable[[str, CaptionerOptions], Captioner], getattr(importlib.import_module(module), function))
    return make(rest, CaptionerOptions(load, wording or Wording(), budget, vlm))


def split_captioner(name: str) -> tuple[str, str]:
    """The kind of captioner that a name says, and the rest of the name; nothing is loaded.

    Raises:
        UnknownModel: there is no such kind.
    """
    if not isinstance(name, str):
        raise UnknownModel(f"a captioner's name is text such as tiny, got {type(name).__name__}")
    scheme, _, rest = name.partition(":")
    if scheme not in CAPTIONERS:
        near = difflib.get_close_matches(scheme, CAPTIONERS, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        shown = re.sub(r"//[^/\s@]*@", "//***@", name)  # a password is not repeated
        raise UnknownModel(f"captioner {shown!r}: no captioners are named {scheme!r}{hint}; {_known()}")
    return scheme, rest


def caption_pictures(captioner: Captioner, pictures: npt.NDArray[np.uint8]) -> list[Caption]:
    """A caption for each of ``pictures [T, H, W, 3]``, as stills: no time is told, and none means anything in them.

    Raises:
        EncoderInputError, EncoderError, EncoderClosed.
    """
    if captioner.info.key_frames:
        frames = [[KeyFrame(picture, 0.0, 0.0, 1.0)] for picture in pictures]
        return captioner.caption([None] * len(frames), key_frames=frames)
    import torch

    from csat_fusion.tokens import TokenSet

    def still(tokens: torch.Tensor) -> TokenSet:
        count = len(tokens)
        ones = torch.ones(count)
        return TokenSet(tokens, ones, ones.double() * 0, ones.double(), torch.arange(count))

    return captioner.caption([still(tokens) for tokens in captioner.tokens(pictures)])


def tidy(text: str, *, full_stop: bool = False) -> str:
    """A sentence as people write it: one space between words, none before punctuation, a capital first.

    Marks of sentences' ends at the end are taken away; ``full_stop`` puts one there.
    """
    text = re.sub(r"[\x00-\x1f\x7f\ufffd\s]+", " ", text)
    text = re.sub(r"\s+([.,;:!?%)\]}])", r"\1", text)
    text = re.sub(r"([(\[{])\s+", r"\1", text)
    text = re.sub(r"\s+'\s*(s|t|re|ve|m|ll|d)\b", r"'\1", text, flags=re.IGNORECASE)
    text = re.sub(r"[\s.,;:!?]+$", "", text).strip()
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("." if full_stop else "")


def _known() -> str:
    return "there are tiny, coca:ARCH/PRETRAINED, vlm:MODEL@URL and python:package.module:factory"
