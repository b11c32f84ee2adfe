"""The interface of every encoder, and what describes a model.

Shapes: T frames, H x W pixels, D width of the joint image-text space, P patches, d width of a patch token, N texts.
Nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from encoders.cards import ModelCard

if TYPE_CHECKING:
    import torch
    from PIL import Image

__all__ = [
    "Encoder",
    "EncoderInfo",
    "FrameTokens",
    "LoadOptions",
    "ModelCard",
    "ModelDescription",
    "ModelEntry",
    "Progress",
    "ProgressCallback",
    "Provider",
]


@dataclass(frozen=True)
class Progress:
    """A step on the way to a loaded model, for a progress bar. ``total_bytes`` is ``None`` where nobody knows it."""

    message: str
    done_bytes: int = 0
    total_bytes: int | None = None


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True)
class EncoderInfo:
    """What an encoder is. Everything that decides its vectors goes into ``fingerprint``.

    ``name`` loads the same model again in another process. ``preprocess`` is plain JSON (height, width, mean, std,
    interpolation, resize_mode, fill_color) and says under ``"source"`` where it came from. ``fingerprint`` is a short
    stable hash of architecture, weights and preprocessing; device, precision and batch size are not part of it, nor is
    ``"source"``. ``patches`` and ``token_width`` are 0 for a model without spatial tokens, else
    ``grid = (rows, columns)`` and ``patches = rows * columns``. ``precision`` and ``batch_size`` are what is in use,
    never ``"auto"`` or 0, and may be given to ``load_encoder`` elsewhere to get the same, up to the last bits.
    """

    name: str
    dimension: int
    token_width: int
    patches: int
    grid: tuple[int, int]
    image_height: int
    image_width: int
    preprocess: Mapping[str, Any]
    fingerprint: str
    random: bool
    precision: str
    precision_reason: str
    device: str
    batch_size: int
    weights: str
    """Identity of the weights: ``sha256:...`` of their file, or ``random:...``."""
    notes: tuple[str, ...] = ()
    lanes: int = 1
    """How many batches run side by side."""
    card: ModelCard = field(default_factory=ModelCard)
    """How the model is asked, and its limits; no part of ``fingerprint``, because it does not touch stored vectors."""

    @property
    def frames_at_once(self) -> int:
        """How many frames are worth collecting for one call of ``encode``; eight keep a lane busy."""
        return max(self.batch_size, 8 * self.lanes)


@dataclass(frozen=True)
class FrameTokens:
    """``embedding [T, D]`` float32 of unit length and ``tokens [T, P, d]`` float32 or ``None``; both torch, on the CPU.

    Raises:
        ValueError: when the two disagree in T, or have the wrong number of axes.
    """

    embedding: torch.Tensor
    tokens: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if self.embedding.ndim != 2:
            raise ValueError(f"embedding must be [T, D], got shape {tuple(self.embedding.shape)}")
        if self.tokens is not None and (self.tokens.ndim != 3 or len(self.tokens) != len(self.embedding)):
            raise ValueError(
                f"tokens must be [T, P, d] with T = {len(self.embedding)}, got shape {tuple(self.tokens.shape)}"
            )

    def __len__(self) -> int:
        return len(self.embedding)


@runtime_checkable
class Encoder(Protocol):
    """Frames, pictures and text into one space. Results do not depend on how frames were batched."""

    @property
    def info(self) -> EncoderInfo: ...

    def encode(self, frames: npt.NDArray[np.uint8], tokens: bool = False) -> FrameTokens:
        """Encode ``frames [T, H, W, 3]`` (uint8 RGB, upright); T may be 0.

        Raises:
            EncoderInputError: for another dtype or shape.
            TokensUnavailable: when ``tokens`` is asked of a model that has none.
            OutOfDeviceMemory, EncoderClosed.
        """
        ...

    def encode_text(self, texts: Sequence[str]) -> torch.Tensor:
        """Encode N texts, as they are, into ``[N, D]`` float32 of unit length, on the CPU.

        Raises:
            EncoderInputError: for anything but a sequence of strings; ``TextEmpty``; ``TextTooLong``.
            TokenizerUnavailable, EncoderClosed.
        """
        ...

    def encode_query(self, texts: Sequence[str]) -> torch.Tensor:
        """Encode N queries into ``[N, D]`` float32 of unit length, on the CPU: texts in ``info.card.templates``.

        Raises:
            As ``encode_text``; a query is too long when it is with its longest template.
        """
        ...

    def encode_image(self, image: Image.Image | npt.NDArray[np.uint8]) -> torch.Tensor:
        """Encode one picture (PIL, EXIF rotation applied, or uint8 RGB ``[H, W, 3]``) into ``[D]`` float32.

        Raises:
            EncoderInputError, OutOfDeviceMemory, EncoderClosed.
        """
        ...

    def close(self) -> None:
        """Let go of the weights. May be called twice."""
        ...

    def __enter__(self) -> Encoder: ...

    def __exit__(self, *exc: object) -> None: ...


@dataclass(frozen=True)
class LoadOptions:
    """The options of ``load_encoder``, checked; defaults are written there."""

    device: str
    precision: str
    batch_size: int
    seed: int
    threads: int
    progress: ProgressCallback | None = None

    def tell(self, message: str, done_bytes: int = 0, total_bytes: int | None = None) -> None:
        if self.progress is not None:
            self.progress(Progress(message, done_bytes, total_bytes))


@dataclass(frozen=True)
class ModelEntry:
    """A line of ``list_models``."""

    name: str
    architecture: str
    pretrained: str
    downloaded: bool
    source: str


@dataclass(frozen=True)
class ModelDescription:
    """What is known of a model without loading its weights; ``None`` where only the weights would tell."""

    name: str
    architecture: str
    pretrained: str
    random: bool
    dimension: int | None
    image_height: int | None
    image_width: int | None
    patch_size: int | None
    context_length: int | None
    parameters: int | None
    quick_gelu: bool | None
    preprocess: Mapping[str, Any]
    source: str
    downloaded: bool
    path: str | None
    size_bytes: int | None
    notes: tuple[str, ...] = field(default=())
    card: ModelCard = field(default_factory=ModelCard)


class Provider(Protocol):
    """One family of models: what stands behind a scheme in ``encoders.registry.ENCODERS``.

    ``rest`` is the model's name without ``scheme:``.
    """

    def load(self, rest: str, options: LoadOptions) -> Encoder: ...

    def models(self) -> list[ModelEntry]: ...

    def describe(self, rest: str) -> ModelDescription: ...

    def require(self, rest: str, progress: ProgressCallback | None, *, download: bool) -> None:
        """See, quickly, that the weights are here; where they are not, bring them, or only see that they can be had."""
        ...

    def fetch(self, rest: str, progress: ProgressCallback | None) -> str:
        """Bring the weights here; return where they lie."""
        ...
