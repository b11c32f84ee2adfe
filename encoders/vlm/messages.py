"""What is asked of a vision-language model, and what its answer means."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from encoders.captioning import tidy
from encoders.errors import VlmAnswerInvalid
from encoders.keyframes import KeyFrame
from encoders.streams import Earlier
from encoders.vlm.options import VlmOptions

__all__ = ["Answer", "picture_url", "prompt_for", "read_answer", "request"]

_AS_JSON = ' Answer with JSON, and nothing else: {"caption": "..."}'
_MOST_CHARACTERS = 4000  # of a caption


@dataclass(frozen=True)
class Answer:
    """``text`` is tidy, and may be empty; ``cut``: its length ended it."""

    text: str
    confidence: float | None
    cut: bool


def request(
    model: str,
    options: VlmOptions,
    frames: Sequence[KeyFrame],
    span: tuple[float, float] | None,
    earlier: Sequence[Earlier] = (),
) -> dict[str, Any]:
    """The body of a request for the caption of these pictures; ``span`` is ``None`` for a still one."""
    detail = {"detail": options.detail} if options.detail else {}
    parts: list[dict[str, Any]] = [{"type": "text", "text": prompt_for(options, frames, span, earlier)}]
    parts += [
        {"type": "image_url", "image_url": {"url": picture_url(frame.image, options), **detail}} for frame in frames
    ]
    body: dict[str, Any] = {
        "model": model,
        "messages": [
            *([{"role": "system", "content": options.system}] if options.system else []),
            {"role": "user", "content": parts},
        ],
    }
    if options.temperature is not None:
        body["temperature"] = options.temperature
    if options.most_tokens:
        body["max_tokens"] = options.most_tokens
    if options.seed is not None:
        body["seed"] = options.seed
    if options.json_mode:
        body["response_format"] = {"type": "json_object"}
    if options.confidence:
        body["logprobs"] = True
    return {**body, **options.extra}


def prompt_for(
    options: VlmOptions,
    frames: Sequence[KeyFrame],
    span: tuple[float, float] | None,
    earlier: Sequence[Earlier] = (),
) -> str:
    """The prompt with its numbers, and before it what was said of earlier moments."""
    if span is None:
        text = options.picture_prompt.format(frames=len(frames))
    else:
        start, end = span
        text = options.prompt.format(
            duration=f"{end - start:.1f} seconds",
            start=_clock(start),
            end=_clock(end),
            frames=len(frames),
            times=", ".join(f"{max(0.0, frame.seconds - start):.1f} s" for frame in frames),
        )
    if earlier:
        said = " ".join(f"{_clock(one.start_seconds)} to {_clock(one.end_seconds)}: {one.text}." for one in earlier)
        text = f"{options.earlier_prompt.format(earlier=said)} {text}"
    return text + _AS_JSON if options.json_mode else text


def picture_url(image: npt.NDArray[np.uint8], options: VlmOptions) -> str:
    """A picture ``[H, W, 3]`` as a JPEG in a ``data:`` address, no longer than ``options.image_side``."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture.thumbnail((options.image_side, options.image_side), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=options.jpeg_quality)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def read_answer(answer: dict[str, Any], options: VlmOptions) -> Answer:
    """The caption in a chat completion.

    Raises:
        VlmAnswerInvalid: it is none, or holds no caption in JSON where that was asked for, or ended before it began.
    """
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise VlmAnswerInvalid(
            f"the answer holds no choices[0].message; it has {', '.join(sorted(answer)) or 'nothing'}"
        )
    content = message.get("content")
    if isinstance(content, list):  # in parts, as some have it
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if content is not None and not isinstance(content, str):
        raise VlmAnswerInvalid(f"the answer's content is a {type(content).__name__}, not text")
    cut = choice.get("finish_reason") == "length"
    text = re.sub(r"<think>.*?(</think>|$)", "", content or "", flags=re.DOTALL).strip()
    if not text and cut:
        raise VlmAnswerInvalid(
            f"the answer reached its length (most_tokens is {options.most_tokens}) before it said anything; allow more"
        )
    text = _from_json(text, cut) if options.json_mode and text else text
    text = tidy(text.strip().strip('"“”').strip())
    if len(text) > _MOST_CHARACTERS:
        raise VlmAnswerInvalid(f"the caption has {len(text)} characters; at most {_MOST_CHARACTERS} are taken")
    return Answer(text, _confidence(choice) if options.confidence else None, cut)


def _from_json(text: str, cut: bool) -> str:
    bare = re.sub(r"^```(?:json)?\s*|\s*```$", "", text)
    try:
        value = json.loads(bare)
    except ValueError as error:
        why = "it was cut off by its length" if cut else str(error)
        raise VlmAnswerInvalid(f"JSON with a caption was asked for, got {bare[:80]!r}: {why}") from error
    caption = value.get("caption") if isinstance(value, dict) else None
    if not isinstance(caption, str):
        raise VlmAnswerInvalid(f'JSON was asked for as {{"caption": "..."}}, got {bare[:80]!r}')
    return caption


def _confidence(choice: dict[str, Any]) -> float | None:
    """The geometric mean of the probabilities of the answer's tokens, where the server tells them."""
    found = choice.get("logprobs")
    tokens = found.get("content") if isinstance(found, dict) else None
    logs = [token.get("logprob") for token in tokens if isinstance(token, dict)] if isinstance(tokens, list) else []
    numbers = [float(log) for log in logs if isinstance(log, int | float) and log <= 0]
    return math.exp(sum(numbers) / len(numbers)) if numbers else None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}"
