"""Synthetic streams of frame tokens with what real video has: scenes and cuts, drift, a moving camera, events.

A scene is a plane of patches larger than the picture, made of a few materials that blend into each other; the camera
looks at a part of it: still, panning by fractions of a patch, or trembling. Light drifts along one direction, every
patch has slow noise of its own and fast noise. An event is an object of a few patches with an appearance of its own
that crosses the picture for one to eight seconds; it is asked for by its patches seen again with other noise, in
brighter light.

Shapes: T frames, P = side * side patches, d width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benching.tokens import FPS, Moment, Stream

__all__ = ["synthetic_stream"]


def synthetic_stream(
    seed: int, *, frames: int = 256, side: int = 7, width: int = 64, events: int = 8, noise: float = 0.15
) -> Stream:
    """A stream of ``frames`` at two a second, everything decided by ``seed``; token parts have a size of about 1."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.empty(frames, side, side, width)
    first = 0
    while first < frames:
        length = min(frames - first, int(_between(generator, 8, 25) * FPS))
        tokens[first : first + length] = _scene(generator, length, side, width)
        first += length
    light = _unit(generator, width) * math.sqrt(width) * 0.4
    phase = 2 * math.pi * float(torch.rand((), generator=generator))
    time = torch.arange(frames) / FPS
    tokens += (torch.sin(2 * math.pi * time / 60 + phase))[:, None, None, None] * light
    slow = torch.zeros(side, side, width)
    event = torch.zeros(frames, side, side, dtype=torch.bool)
    planted = _plant(generator, tokens, event, events)
    for t in range(frames):
        slow = 0.97 * slow + 0.05 * torch.randn(side, side, width, generator=generator)
        tokens[t] += slow + noise * torch.randn(side, side, width, generator=generator)
    moments = tuple(
        Moment(
            begin / FPS,
            end / FPS,
            1.1 * look + 0.5 * light + noise * torch.randn(look.shape, generator=generator),
        )
        for begin, end, look in planted
    )
    mask = event.flatten(1)
    start = tuple((time).tolist())
    end = tuple((time + 1 / FPS).tolist())
    return Stream(f"synthetic-{seed}", "synthetic", tokens.flatten(1, 2), start, end, moments, mask, ~mask)


def _between(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _unit(generator: torch.Generator, width: int) -> Tensor:
    direction = torch.randn(width, generator=generator)
    return direction / direction.norm()


def _scene(generator: torch.Generator, length: int, side: int, width: int) -> Tensor:
    """``[length, side, side, d]``: one scene seen by one camera."""
    plane = 4 * side
    materials = torch.randn(6, width, generator=generator)
    coarse = torch.randn(1, 6, plane // 3, plane // 3, generator=generator)
    blend = torch.nn.functional.interpolate(coarse, size=(plane, plane), mode="bicubic", align_corners=True)[0]
    surface = torch.einsum("kyx,kd->yxd", (4 * blend).softmax(dim=0), materials)
    surface += 0.2 * torch.randn(surface.shape, generator=generator)
    camera = int(torch.randint(3, (), generator=generator))
    centre = torch.full((length, 2), 1.5 * side)
    if camera == 1:
        speed = _between(generator, 0.05, 0.4)  # patches a frame
        angle = 2 * math.pi * float(torch.rand((), generator=generator))
        centre += torch.arange(length)[:, None] * speed * torch.tensor([math.sin(angle), math.cos(angle)])
    elif camera == 2:
        centre += 0.3 * torch.randn(length, 2, generator=generator)
    centre = centre.clamp(0, plane - side - 1.001)
    whole, part = centre.floor().long(), centre - centre.floor()
    found = []
    for (y, x), (b, a) in zip(whole.tolist(), part.tolist(), strict=True):
        seen = surface[y : y + side + 1, x : x + side + 1]
        rows = (1 - b) * seen[:-1] + b * seen[1:]
        found.append((1 - a) * rows[:, :-1] + a * rows[:, 1:])
    return torch.stack(found)


def _plant(generator: torch.Generator, tokens: Tensor, event: Tensor, events: int) -> list[tuple[int, int, Tensor]]:
    """Put objects into ``tokens [T, side, side, d]``, one after the other, marked in ``event``; for each its first
    frame, the one after its last, and its look ``[q, d]``."""
    frames, side, _, width = tokens.shape
    slot = frames // max(1, events)
    planted = []
    for i in range(events):
        length = min(slot - 1, max(2, round(_between(generator, 1, 8) * FPS)))
        first = i * slot + int(torch.randint(slot - length, (), generator=generator))
        size = int(torch.randint(1, max(2, side // 2 + 1), (), generator=generator))
        look = torch.randn(width, generator=generator) + 0.3 * torch.randn(size * size, width, generator=generator)
        room = side - size
        start, stop = (room * torch.rand(2, generator=generator) for _ in range(2))
        for t in range(length):
            y, x = (start + (stop - start) * t / length).round().long().tolist()
            tokens[first + t, y : y + size, x : x + size] = look.view(size, size, width)
            event[first + t, y : y + size, x : x + size] = True
        planted.append((first, first + length, look))
    return planted
