"""The log of a job: what libraries print and log while it runs, kept out of the terminal and of ``--json``."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path

__all__ = ["job_log"]


class _LateFile(io.TextIOBase):
    """A text file for appending that is made with the first line written to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: io.TextIOWrapper | None = None

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._file is None:
            self._path.parent.mkdir(exist_ok=True)
            self._file = self._path.open("a", encoding="utf-8", errors="backslashreplace")
        written = self._file.write(text)
        self._file.flush()
        return written

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


@contextlib.contextmanager
def job_log(path: Path) -> Iterator[None]:
    """Within it, what is printed to standard output and what our packages log goes to the file at ``path``.

    Ray prints to the driver's standard output whenever a worker dies; there it would stand in the middle of the
    progress bars, and between the lines of ``--json``.
    """
    with _LateFile(path) as file, contextlib.redirect_stdout(file):
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        loggers = [logging.getLogger(name) for name in ("jobs", "pipeline", "encoders")]
        before = [(logger, logger.level, logger.propagate) for logger in loggers]
        for logger in loggers:
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False
        try:
            yield
        finally:
            for logger, level, propagate in before:
                logger.removeHandler(handler)
                logger.setLevel(level)
                logger.propagate = propagate
