"""How a vision-language model behind an address is asked. Nothing heavy is imported here."""

from __future__ import annotations

import math
import string
from dataclasses import dataclass, field
from typing import Any

from encoders.errors import EncoderOptionError

__all__ = ["EARLIER_PROMPT", "PICTURE_PROMPT", "PROMPT", "PROMPT_FIELDS", "VlmOptions"]

# What a prompt may hold in braces: how long the segment is, when it starts and ends in the video, how many pictures of
# it are shown, and when each was, counted from the segment's start.
PROMPT_FIELDS = ("duration", "start", "end", "frames", "times")

PROMPT = (
    "These {frames} pictures, in order of time, are from {duration} of video; they were seen at {times}. "
    "Say in one plain sentence, in English, what happens: who or what is seen, and what they do. "
    "Name nothing that is not seen. Answer with the sentence alone."
)
PICTURE_PROMPT = (
    "Say in one plain sentence, in English, what this picture shows. Name nothing that is not seen. "
    "Answer with the sentence alone."
)
EARLIER_PROMPT = (
    "What was said of earlier moments that looked like this, in order of time: {earlier} "
    "It may help to say who or what this is; say what is seen now, and nothing that is not."
)


@dataclass(frozen=True)
class VlmOptions:
    """How ``vlm:MODEL@URL`` is asked.

    Attributes:
        prompt: what is asked of a segment; may hold :data:`PROMPT_FIELDS` in braces, ``{{`` and ``}}`` for braces.
        picture_prompt: what is asked of a still picture; ``{frames}`` is all it may hold.
        earlier_prompt: what is said before the prompt where earlier moments of a live stream are told of; must hold
            ``{earlier}``, and nothing else in braces.
        system: a system message; empty: none.
        json_mode: the server is told to answer with JSON, and the caption is its ``caption``.
        key_frames: how many pictures of a segment are shown at most.
        image_side: pixels; a picture with a longer side is made smaller.
        jpeg_quality: of the pictures that are sent, 1 to 95.
        detail: OpenAI's word for how closely to look (low, high, auto); empty: not sent.
        temperature: ``None``: not sent.
        most_tokens: of an answer, sent as ``max_tokens``; 0: not sent.
        seed: ``None``: not sent.
        confidence: ask for the probabilities of the answer's tokens, which give the caption its confidence.
        extra: further fields of a request, as the server knows them, such as ``{"max_completion_tokens": 100}``.
        key_variable: the environment variable that holds the key; it is read when the captioner is loaded, and must be
            there. ``None``: ``OPENAI_API_KEY`` where that is set, sent over https or to this very machine only. Empty:
            no key. Where a variable is named, its key is sent to the address whatever it is.
        timeout_seconds: of one request, from connecting to the last byte.
        retries: how often a request is repeated that failed for want of a connection, of time or of capacity.
        first_wait_seconds: before the first repetition; it doubles with each, and is shortened by up to half by chance.
        most_wait_seconds: what a wait is at most. A server that asks for more (Retry-After) is not asked again.
        concurrency: requests at one time.
        price_in, price_out: what a million tokens cost, of pictures and prompts, and of answers; 0: nobody says, and no
            cost is told.
        currency: of these.

    Raises:
        EncoderOptionError: a value outside what is allowed.
    """

    prompt: str = PROMPT
    picture_prompt: str = PICTURE_PROMPT
    earlier_prompt: str = EARLIER_PROMPT
    system: str = ""
    json_mode: bool = False
    key_frames: int = 6
    image_side: int = 512
    jpeg_quality: int = 85
    detail: str = ""
    temperature: float | None = 0.0
    most_tokens: int = 120
    seed: int | None = None
    confidence: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    key_variable: str | None = None
    timeout_seconds: float = 60.0
    retries: int = 4
    first_wait_seconds: float = 0.5
    most_wait_seconds: float = 30.0
    concurrency: int = 4
    price_in: float = 0.0
    price_out: float = 0.0
    currency: str = "USD"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("prompt", PROMPT_FIELDS),
            ("picture_prompt", ("frames",)),
            ("earlier_prompt", ("earlier",)),
        ):
            _check_prompt(name, getattr(self, name), allowed)
        if "{earlier}" not in self.earlier_prompt:
            raise EncoderOptionError(f"earlier_prompt {self.earlier_prompt!r} must hold {{earlier}}")
        for name, least, most in (
            ("key_frames", 1, 64),
            ("image_side", 16, 4096),
            ("jpeg_quality", 1, 95),
            ("most_tokens", 0, None),
            ("retries", 0, 20),
            ("concurrency", 1, 256),
        ):
            number = getattr(self, name)
            whole = isinstance(number, int) and not isinstance(number, bool)
            if not whole or number < least or (most is not None and number > most):
                upper = "" if most is None else f", at most {most}"
                raise EncoderOptionError(f"{name} is {number!r}; allowed: a whole number, at least {least}{upper}")
        for name, low in (
            ("timeout_seconds", 1e-3),
            *((name, 0.0) for name in ("first_wait_seconds", "most_wait_seconds", "price_in", "price_out")),
        ):
            value = getattr(self, name)
            if not low <= value < math.inf:
                raise EncoderOptionError(f"{name} is {value}; allowed: at least {low:g}, finite")
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise EncoderOptionError(
                f"temperature is {self.temperature}; allowed: 0 to 2, or None for the server's own"
            )
        ours = sorted(set(self.extra) & {"model", "messages", "stream", "n"})
        if ours:
            raise EncoderOptionError(f"extra has {', '.join(ours)}; these are set by Longreel")


def _check_prompt(name: str, prompt: str, allowed: tuple[str, ...]) -> None:
    braces = "; braces that are meant as such are written {{ and }}"
    try:
        parts = list(string.Formatter().parse(prompt))
    except ValueError as error:
        raise EncoderOptionError(f"{name} {prompt!r}: {error}{braces}") from error
    for _, found, spec, conversion in parts:
        if found is not None and (found not in allowed or spec or conversion):
            known = ", ".join("{" + one + "}" for one in allowed)
            raise EncoderOptionError(f"{name} has {{{found}}}; allowed: {known}{braces}")
    if not prompt.strip():
        raise EncoderOptionError(f"{name} is empty; it must say what is asked")
