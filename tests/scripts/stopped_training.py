"""Run train_tiny.py again and again, each run stopped by a signal at a line it tells; not a test itself.

    python tests/scripts/stopped_training.py '[[2, "sight 3/4"], [9, "words 3/4"], [0, ""]]' ARGUMENTS...

Each run is a process of its own, forked after the imports to spare their time. Prints the exit codes as JSON, those of
signals negative.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2  # noqa: F401
import open_clip  # noqa: F401
import timm  # noqa: F401
import torch  # noqa: F401

import scripts.training.bank
import scripts.training.video
import scripts.training.words  # noqa: F401
from scripts import train_tiny


def one(signal: int, line: str, arguments: list[str]) -> int:
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def told(message: str) -> None:
        print(message, file=sys.stderr, flush=True)
        if signal and message.startswith(line):
            os.kill(os.getpid(), signal)

    code = 70
    try:
        train_tiny.tell = told
        code = train_tiny.main(arguments)
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    print(json.dumps([one(signal, line, sys.argv[2:]) for signal, line in json.loads(sys.argv[1])]))
