"""Errors of the encoders. All are :class:`LongreelError`; the message names the value and what was allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from csat_fusion.errors import LongreelError

if TYPE_CHECKING:
    from encoders.captioning import Caption

__all__ = [
    "CaptionerUnavailable",
    "DeviceUnavailable",
    "EncoderClosed",
    "EncoderError",
    "EncoderInputError",
    "EncoderOptionError",
    "ModelCardInvalid",
    "OutOfDeviceMemory",
    "PreprocessMismatch",
    "TextEmpty",
    "TextTooLong",
    "TokenizerUnavailable",
    "TokensUnavailable",
    "UnknownModel",
    "WeightsDamaged",
    "WeightsMismatch",
    "WeightsUnavailable",
]


class EncoderError(LongreelError):
    """A model cannot be loaded or cannot encode what it was given.

    Attributes:
        captions: of a captioner that was given several segments and has not captioned them all: one for each, ``None``
            for those without. They were paid for, and are to be kept. Empty: there is not one.
    """

    captions: tuple[Caption | None, ...] = ()


class EncoderOptionError(EncoderError, ValueError):
    """An option of ``load_encoder`` outside what is allowed."""


class EncoderInputError(EncoderError, ValueError):
    """Frames, an image or text of the wrong type, shape or dtype."""


class EncoderClosed(EncoderError):
    """The encoder was used after ``close()``."""


class UnknownModel(EncoderError, ValueError):
    """No model of that name; the message gives the nearest ones."""


class DeviceUnavailable(EncoderError):
    """The device that was asked for is not there. It is never replaced by another in silence."""


class OutOfDeviceMemory(EncoderError):
    """Not even one frame at a time fits into the device's memory."""


class WeightsUnavailable(EncoderError):
    """The weights are neither here nor to be had; the message says what to do. Random ones never take their place."""


class WeightsDamaged(EncoderError):
    """A weights file that cannot be read: truncated, corrupt, or not a file of plain weights."""


class WeightsMismatch(EncoderError):
    """Weights that belong to another architecture; the message names keys and shapes."""


class PreprocessMismatch(EncoderError):
    """How pictures must be prepared for these weights is unknown or contradictory; it is never guessed."""


class ModelCardInvalid(EncoderError):
    """A model card that cannot be read, or that says what no card may."""


class TokensUnavailable(EncoderError):
    """This model's image tower gives no spatial tokens."""


class TokenizerUnavailable(EncoderError):
    """The model's tokenizer cannot be made: a package is missing, or its files are neither cached nor to be had."""


class TextEmpty(EncoderInputError):
    """A text without any letter to encode."""


class TextTooLong(EncoderInputError):
    """A text with more tokens than the model reads; the message gives both numbers."""


class CaptionerUnavailable(EncoderError):
    """A model that cannot caption: it has no caption decoder, or one of a kind that is not known here."""


# -- models behind an address ------------------------------------------------------------------------------------------


class VlmError(EncoderError):
    """A model behind an address did not answer as it should. The message never holds the key."""


class VlmUnreachable(VlmError):
    """No connection: refused, no such host, cut off, or no agreement on encryption."""


class VlmTimeout(VlmError):
    """No whole answer within the time that one request is given."""


class VlmUnauthorised(VlmError):
    """The server wants a key, or another one."""


class VlmRejected(VlmError):
    """The server does not take such requests: no such model or address, pictures it cannot read, a limit used up."""


class VlmRefused(VlmRejected):
    """The server does not take this one request: its pictures, or its words. It may well take the next."""


class VlmOverloaded(VlmError):
    """The server had no capacity, or failed by itself, each time it was asked."""


class VlmAnswerInvalid(VlmError):
    """An answer that is no chat completion, or that holds no caption where JSON was asked for."""
