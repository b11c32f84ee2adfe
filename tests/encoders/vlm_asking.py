"""How the tests ask a model behind an address: quickly, and about plain pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from encoders.captioning import Caption, KeyFrame, load_captioner
from encoders.vlm.captioner import VlmCaptioner
from encoders.vlm.options import VlmOptions
from tests.encoders.vlm_server import VlmServer

QUICK = VlmOptions(timeout_seconds=5, retries=2, first_wait_seconds=0.01)


def load(server: VlmServer, options: VlmOptions = QUICK, **changed: Any) -> VlmCaptioner:
    captioner = load_captioner(server.name(), vlm=replace(options, **changed))
    assert isinstance(captioner, VlmCaptioner)
    return captioner


def frames_of(*levels: int, start: float = 0.0, size: tuple[int, int] = (24, 32)) -> list[KeyFrame]:
    return [
        KeyFrame(np.full((*size, 3), level, np.uint8), start + i + 0.5, start + i, start + i + 1)
        for i, level in enumerate(levels)
    ]


def ask(captioner: VlmCaptioner, *levels: int, span: tuple[float, float] | None = (0.0, 9.0)) -> Caption:
    (caption,) = captioner.caption([None], spans=[span], key_frames=[frames_of(*levels)])
    return caption
