"""Deterministic ids: the same work gives the same ids in every process, so doing it again changes nothing."""

from __future__ import annotations

from hashlib import blake2b

from pipeline.media import Span

__all__ = ["part_id_for", "segment_id_for", "vector_id_for", "video_id_for"]

_INT63 = (1 << 63) - 1


def _digest(*parts: str, size: int) -> bytes:
    # Lengths go in too, so that ("ab", "c") and ("a", "bc") differ. File names may hold bytes that are no UTF-8.
    hasher = blake2b(digest_size=size)
    for part in parts:
        raw = part.encode("utf-8", "surrogateescape")
        hasher.update(len(raw).to_bytes(8, "big"))
        hasher.update(raw)
    return hasher.digest()


def video_id_for(uri: str) -> str:
    """Sixteen hexadecimal digits from a (redacted) URI."""
    return _digest("video", uri, size=8).hex()


def part_id_for(video_id: str, fingerprint: str, recipe_key: str, span: Span) -> str:
    """Twenty-four hexadecimal digits: one range of one content of a video, made with one recipe."""
    return _digest(
        "part", video_id, fingerprint, recipe_key, repr(span.start_seconds), repr(span.end_seconds), size=12
    ).hex()


def segment_id_for(part_id: str, segment_index: int) -> int:
    """A 63-bit number for a segment of a part."""
    return int.from_bytes(_digest("segment", part_id, str(segment_index), size=8), "big") & _INT63


def vector_id_for(part_id: str, segment_index: int, vector_index: int) -> int:
    """A 63-bit number for a vector: FAISS and SQL both keep signed 64-bit integers."""
    return int.from_bytes(_digest("vector", part_id, str(segment_index), str(vector_index), size=8), "big") & _INT63
