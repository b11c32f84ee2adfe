"""Text for OpenCLIP models: their tokenizers, with lengths checked instead of cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from encoders.errors import EncoderInputError, TextEmpty, TextTooLong, TokenizerUnavailable
from encoders.openclip.names import ModelName

__all__ = ["TextTokenizer"]


class TextTokenizer:
    """Turns texts into the token ids ``[N, L]`` that a text tower reads, L its context length.

    Raises:
        TokenizerUnavailable: when a package or the tokenizer's files are missing.
    """

    def __init__(self, name: ModelName, text_config: dict[str, Any], context_length: int) -> None:
        self._name = name.full
        self._context_length = context_length
        self._tokenizer = _make(name, text_config, context_length)
        inner = getattr(self._tokenizer, "tokenizer", None)  # the Hugging Face tokenizer inside, where there is one
        self._count: Callable[[str], int] = self._count_plain if inner is None else self._count_hub

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Token ids of N texts, ``[N, L]`` int64.

        Raises:
            EncoderInputError: for anything but a sequence of strings.
            TextEmpty: for a text without a visible character.
            TextTooLong: for a text with more than L tokens, start and end marks included.
        """
        if isinstance(texts, (str, bytes)) or not isinstance(texts, Sequence):
            raise EncoderInputError(f"texts must be a list of strings, got {type(texts).__name__}")
        for text in texts:
            if not isinstance(text, str):
                raise EncoderInputError(f"texts must be strings, got {type(text).__name__}")
            if not text.strip():
                raise TextEmpty("a text to encode must not be empty")
            length = self._count(text)
            if length > self._context_length:
                raise TextTooLong(
                    f"the text {text[:40]!r}... has {length} tokens, {self._name} reads at most {self._context_length}"
                )
        ids = self._tokenizer(list(texts), context_length=self._context_length)
        assert isinstance(ids, torch.Tensor)
        return ids

    def _count_plain(self, text: str) -> int:
        return len(self._tokenizer.encode(text)) + 2

    def _count_hub(self, text: str) -> int:
        return len(self._tokenizer.tokenizer(self._tokenizer.clean_fn(text)).input_ids)


def _make(name: ModelName, text_config: dict[str, Any], context_length: int) -> Any:
    import open_clip
    from open_clip.tokenizer import HFTokenizer

    hub_name = text_config.get("hf_tokenizer_name")
    try:
        if name.config_path is None:
            return open_clip.get_tokenizer(name.architecture, context_length=context_length)
        options = dict(text_config.get("tokenizer_kwargs") or {})
        if hub_name:
            return HFTokenizer(
                hub_name, context_length=context_length, tokenizer_mode=text_config.get("tokenizer_mode"), **options
            )
        return open_clip.SimpleTokenizer(context_length=context_length, **options)
    except ImportError as error:
        raise TokenizerUnavailable(
            f"{name.full} needs the tokenizer {hub_name!r} from Hugging Face: "
            f"pip install transformers sentencepiece ({error})"
        ) from error
    except (OSError, ValueError) as error:
        raise TokenizerUnavailable(
            f"the tokenizer {hub_name!r} of {name.full} is neither in the Hugging Face cache nor to be had: "
            f"{(str(error).splitlines() or [''])[0][:200]}"
        ) from error
