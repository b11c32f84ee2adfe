"""Manifests: lists of sources in a file, one URI a line or one JSON object a line."""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass
from datetime import datetime, timezone

from pipeline.errors import ManifestError, SourceNotFound, SourceUnreadable
from pipeline.sources.redact import is_remote

__all__ = ["SourceItem", "absolute", "read_manifest", "source_name"]

_FIELDS = ("uri", "video", "name", "tags", "start_time")


@dataclass(frozen=True)
class SourceItem:
    """One source that a person named.

    Attributes:
        uri: an absolute real path, or an address as given (secrets included: redact before storing or showing).
        name: what it is called; kept as it is, any script.
        start_time: when its first frame was taken, with time zone; None when not known.
    """

    uri: str
    name: str
    tags: tuple[str, ...] = ()
    start_time: datetime | None = None


def source_name(uri: str) -> str:
    """The last part of a path or address, without its query."""
    path = uri.partition("://")[2] if is_remote(uri) else uri
    if is_remote(uri) and not uri.lower().startswith("s3://"):
        path = path.partition("?")[0].partition("#")[0]
    return path.rstrip("/").rpartition("/")[2] or path


def absolute(path: str, base: str | None = None) -> str:
    """The absolute real path of a local path, with ``~`` and ``file://`` resolved; addresses come back as they are."""
    if is_remote(path):
        return path
    if path.lower().startswith("file://"):
        from urllib.parse import unquote

        path = unquote(path[len("file://") :])
    return os.path.realpath(os.path.join(base or os.getcwd(), os.path.expanduser(path)))


def read_manifest(path: str) -> list[SourceItem]:
    """The items of a manifest, in its order; relative paths count from the manifest's own folder.

    Lines that are empty or start with ``#`` are left out. A line that starts with ``{`` is JSON with ``uri`` (or
    ``video``) and, if wanted, ``name``, ``tags`` (a list, or one word) and ``start_time`` (ISO 8601; UTC when it names
    no zone). Any other line is a URI. Repeated URIs with the same facts stay: whoever asked removes them.

    Raises:
        SourceNotFound, SourceUnreadable: the manifest itself.
        ManifestError: a line that cannot be read, with file and line.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError as error:
        raise SourceNotFound(f"{path}: no such manifest") from error
    except OSError as error:
        raise SourceUnreadable(f"{path}: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        bad_line = content[: error.start].count(b"\n") + 1
        raise ManifestError(f"{path}:{bad_line}: not UTF-8 text; a manifest is a text file") from error
    base = os.path.dirname(os.path.realpath(path))
    items = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        where = f"{path}:{number}"
        if line.startswith("{") or path.lower().endswith((".jsonl", ".ndjson")):
            items.append(_json_item(line, where, base))
        elif "\x00" in line:
            raise ManifestError(f"{where}: a NUL byte; a manifest is a text file")
        else:
            uri = absolute(line, base)
            items.append(SourceItem(uri, source_name(uri)))
    return items


def _json_item(line: str, where: str, base: str) -> SourceItem:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ManifestError(f"{where}: not JSON: {error.msg} at column {error.colno}") from error
    if not isinstance(record, dict):
        raise ManifestError(f"{where}: a JSON object was expected, got {type(record).__name__}")
    for key in record:
        if key not in _FIELDS:
            near = difflib.get_close_matches(key, _FIELDS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ManifestError(f"{where}: unknown field {key!r}; allowed: {', '.join(_FIELDS)}{hint}")
    given = [record[key] for key in ("uri", "video") if key in record]
    if len(given) != 1 or not isinstance(given[0], str) or not given[0].strip():
        raise ManifestError(f"{where}: exactly one of 'uri' and 'video' must be there, a text that is not empty")
    uri = absolute(given[0], base)
    name = record.get("name", source_name(uri))
    if not isinstance(name, str) or not name:
        raise ManifestError(f"{where}: 'name' must be a text that is not empty, got {name!r}")
    tags = record.get("tags", [])
    tags = [tags] if isinstance(tags, str) else tags
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag for tag in tags):
        raise ManifestError(f"{where}: 'tags' must be a list of texts, got {tags!r}")
    return SourceItem(uri, name, tuple(dict.fromkeys(tags)), _start_time(record.get("start_time"), where))


def _start_time(value: object, where: str) -> datetime | None:
    if value is None:
        return None
    try:
        if not isinstance(value, str):
            raise ValueError
        # Python 3.10 does not read the "Z" that ISO 8601 allows.
        time = datetime.fromisoformat(value[:-1] + "+00:00" if value.endswith(("Z", "z")) else value)
    except ValueError:
        raise ManifestError(
            f"{where}: 'start_time' must be an ISO 8601 time such as 2024-05-01T08:30:00Z, got {value!r}"
        ) from None
    return time if time.tzinfo is not None else time.replace(tzinfo=timezone.utc)
