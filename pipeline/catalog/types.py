"""Column types that SQLite and PostgreSQL store alike."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import DateTime, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

__all__ = ["FileText", "UtcDateTime"]

# A file name that is no UTF-8 reaches Python with its odd bytes as lone surrogates U+DC80..U+DCFF, which no database
# takes as text. They are kept as the private-use characters U+10FC80..U+10FCFF and given back as they were.
_LONE = re.compile("[\udc80-\udcff]")
_KEPT = re.compile("[\U0010fc80-\U0010fcff]")
_SHIFT = 0x10FC80 - 0xDC80


class FileText(TypeDecorator[str]):
    """Text that may hold file names of any bytes."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        kept = _LONE.sub(lambda match: chr(ord(match[0]) + _SHIFT), value)
        return kept.replace("\x00", "\N{SYMBOL FOR NULL}")  # PostgreSQL takes no NUL in text

    def process_result_value(self, value: Any | None, dialect: Dialect) -> str | None:
        return None if value is None else _KEPT.sub(lambda match: chr(ord(match[0]) - _SHIFT), value)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time; a naive one is refused, because nobody knows what it means."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"time {value.isoformat()} has no time zone")
        return value.astimezone(timezone.utc)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        # SQLite keeps no zone: what went in was UTC.
        result: datetime = (
            value.replace(tzinfo=timezone.utc) if value.tzinfo is None else value.astimezone(timezone.utc)
        )
        return result
