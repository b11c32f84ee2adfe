"""From what a person names (files, folders, globs, manifests, addresses) to a list of sources."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from pipeline.errors import InputError, NothingToDo, SourceNotFound, SourceUnreadable
from pipeline.sources.manifest import SourceItem, absolute, read_manifest, source_name
from pipeline.sources.probe import looks_like_video
from pipeline.sources.redact import is_remote, redact

__all__ = ["VIDEO_ENDINGS", "find_sources"]

# In a folder, a file with one of these endings is listed even when its content is broken, so that it shows up as a
# failure and is not passed over. (".ts" is TypeScript as often as video, so it is decided by content alone.)
# fmt: off
VIDEO_ENDINGS = frozenset(
    (
        ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265", ".hevc", ".ivf",
        ".m2ts", ".m2v", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".obu",
        ".ogv", ".vob", ".webm", ".wmv", ".y4m",
    )
)
# fmt: on
_MANIFEST_ENDINGS = (".txt", ".jsonl", ".ndjson")


def find_sources(inputs: Iterable[str]) -> list[SourceItem]:
    """What the inputs name, in their order, each URI once.

    An input is a file (always listed, whatever it holds), a folder (recursive, sorted; files that are video by content
    or by ending, hidden ones left out), a glob, a manifest (``@list.txt``, or a ``.txt``, ``.jsonl`` or ``.ndjson``
    file), or an ``http(s)://`` or ``s3://`` address (an ``s3://`` address that ends in ``/`` is listed like a folder).

    Raises:
        NothingToDo: no inputs, or a folder, glob, prefix or manifest that names no video.
        SourceNotFound: a path that does not exist.
        SourceUnreadable: a folder that may not be read.
        ManifestError: a manifest's line that cannot be read.
        RemoteError: an ``s3://`` prefix that cannot be listed.
        InputError: two addresses that differ in their credentials alone: both would be the same video.
    """
    found: dict[str, SourceItem] = {}
    asked = list(inputs)
    if not asked:
        raise NothingToDo("no input was named; give files, folders, globs, manifests or addresses")
    for text in asked:
        count = 0
        for item in _expand(text):
            count += 1
            found.setdefault(item.uri, item)
        if count == 0:
            raise NothingToDo(f"{redact(text)}: names no video")
    _refuse_twins(found)
    return list(found.values())


def _refuse_twins(uris: Iterable[str]) -> None:
    """Videos are known by their address without its secrets; two that are left alike would overwrite each other."""
    known: dict[str, str] = {}
    for uri in uris:
        other = known.setdefault(redact(uri), uri)
        if other != uri:
            raise InputError(
                f"{redact(uri)}: named twice, with different {_differences(uri, other)}; that is not part of a video's "
                "identity, so the two would be one video. Name it once, or submit the two to different libraries"
            )


def _differences(uri: str, other: str) -> str:
    """In what two addresses differ, in words without values."""
    first, second = urlsplit(uri), urlsplit(other)
    pairs = set(first.query.split("&")) ^ set(second.query.split("&"))
    found = ["login"] if first.netloc != second.netloc else []
    found += sorted({f"{pair.partition('=')[0]}=" for pair in pairs if pair})
    found += ["fragment (#)"] if first.fragment != second.fragment else []
    return ", ".join(found) or "spelling"


def _expand(text: str) -> Iterator[SourceItem]:
    if is_remote(text):
        yield from _remote(text)
    elif text.startswith("@") and not os.path.exists(text):
        for item in read_manifest(absolute(text[1:])):
            yield from _manifest_item(item)
    else:
        path = absolute(text)
        if os.path.isdir(path):
            yield from _folder(path)
        elif os.path.isfile(path) and path.lower().endswith(_MANIFEST_ENDINGS):
            for item in read_manifest(path):
                yield from _manifest_item(item)
        elif os.path.lexists(path):
            yield SourceItem(path, os.path.basename(path))
        elif glob.has_magic(text):
            yield from _glob(os.path.expanduser(text))
        else:
            raise SourceNotFound(f"{path}: no such file or folder")


def _manifest_item(item: SourceItem) -> Iterator[SourceItem]:
    """A manifest may name folders and prefixes; their videos take its tags. A missing file stays and fails alone."""
    if is_remote(item.uri) or not os.path.isdir(item.uri):
        inner: Iterable[SourceItem] = _remote(item.uri) if item.uri.endswith("/") and is_remote(item.uri) else [item]
    else:
        inner = _folder(item.uri)
    for one in inner:
        yield one if one is item else SourceItem(one.uri, one.name, item.tags, item.start_time)


def _glob(pattern: str) -> Iterator[SourceItem]:
    for path in sorted(glob.glob(pattern, recursive=True)):
        if os.path.isdir(path):
            yield from _folder(os.path.realpath(path))
        elif _is_listed(path):
            yield SourceItem(os.path.realpath(path), os.path.basename(path))


def _folder(folder: str) -> Iterator[SourceItem]:
    def refuse(error: OSError) -> None:
        raise SourceUnreadable(f"{error.filename}: {error.strerror}") from error

    for where, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = os.path.join(where, name)
            if not name.startswith(".") and _is_listed(path):
                yield SourceItem(os.path.realpath(path), name)


def _is_listed(path: str) -> bool:
    if os.path.splitext(path)[1].lower() in VIDEO_ENDINGS:
        return True
    return os.path.isfile(path) and looks_like_video(path)


def _remote(uri: str) -> Iterator[SourceItem]:
    if uri.lower().startswith("s3://") and (uri.endswith("/") or uri.count("/") == 2):
        from pipeline.sources.remote import list_prefix

        for one in list_prefix(uri):
            if os.path.splitext(one)[1].lower() in VIDEO_ENDINGS | {".ts"}:
                yield SourceItem(one, source_name(one))
    else:
        yield SourceItem(uri, source_name(uri))
