"""Text for OpenCLIP models: their tokenizers, with lengths checked instead of cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from encoders.cards import check_texts
from encoders.errors import EncoderInputError, TextEmpty, TextTooLong, TokenizerUnavailable
from encoders.openclip.names import ModelName

__all__ = ["TextTokenizer"]

# More than the longest token of any vocabulary has: a text beyond so many a token of the context is too long unread
# (finding the tokens of one endless word takes time that grows with its square).
_CHARACTERS_A_TOKEN = 40


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
        self._ids: Callable[[str], list[int]] = self._ids_plain if inner is None else self._ids_hub
        self._marks = 2 if inner is None else len(self._ids_hub(""))  # around every text

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Token ids of N texts, ``[N, L]`` int64.

        Any language and any sign has tokens; which of them mean something to a model, its card says.

        Raises:
            EncoderInputError: see :func:`encoders.cards.check_texts`; for a text that holds the model's own marks of
                start and end, which would cut it off there.
            TextEmpty: for a text without a visible character, or with none that the tokenizer keeps.
            TextTooLong: for a text with more than L tokens, start and end marks included.
        """
        check_texts(texts)
        for text in texts:
            self._check(text)
        ids = self._tokenizer(list(texts), context_length=self._context_length)
        assert isinstance(ids, torch.Tensor)
        return ids

    @property
    def ends(self) -> tuple[int, int] | None:
        """The ids of the marks at the start and the end of a text, where the tokenizer is open_clip's own."""
        start, end = (getattr(self._tokenizer, name, None) for name in ("sot_token_id", "eot_token_id"))
        return None if start is None or end is None else (int(start), int(end))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids; bytes that are no whole letter become a replacement character."""
        text: str = self._tokenizer.decode(list(ids))
        return text

    def _check(self, text: str) -> None:
        length = len(" ".join(text.split()))
        if length > _CHARACTERS_A_TOKEN * self._context_length:
            raise self._too_long(text, f"{length} characters")
        ids = self._ids(text)
        if len(ids) <= self._marks:
            raise TextEmpty(f"the text {text[:40]!r} holds nothing that {self._name} reads")
        if len(ids) > self._context_length:
            raise self._too_long(text, f"{len(ids)} tokens")

    def _too_long(self, text: str, size: str) -> TextTooLong:
        return TextTooLong(
            f"the text {text[:40]!r}... has {size}, {self._name} reads at most {self._context_length} tokens"
        )

    def _ids_plain(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text)
        if marks := set(ids) & set(self._tokenizer.all_special_ids):
            shown = ", ".join(self._tokenizer.decoder[mark] for mark in sorted(marks))
            raise EncoderInputError(f"the text {text[:40]!r} holds {shown}, which marks the ends of a text")
        return [self._tokenizer.sot_token_id, *ids, self._tokenizer.eot_token_id]

    def _ids_hub(self, text: str) -> list[int]:
        return list(self._tokenizer.tokenizer(self._tokenizer.clean_fn(text)).input_ids)


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
        if "bpe_path" in options:  # a vocabulary that lies beside its configuration
            options["bpe_path"] = str(name.config_path.parent / options["bpe_path"])
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
