"""The tables, as they are now. Migrations are what makes them in a database; a test holds the two equal.

The full-text index of captions is not among them: it is a virtual table in SQLite and an index over an expression in
PostgreSQL, see migration 0002 and :mod:`pipeline.catalog.caption_search`.

All spans are half-open ``[start_seconds, end_seconds)`` of media time. ``seq`` is one counter for the whole library
that goes up with every vector added and every batch removed, in the order of commits: whoever has seen ``seq`` N needs
only what lies above it.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

from pipeline.catalog.types import FileText, UtcDateTime

__all__ = [
    "captions",
    "connections",
    "counters",
    "errors",
    "job_items",
    "jobs",
    "metadata",
    "parts",
    "removals",
    "segments",
    "streams",
    "thumbnails",
    "token_sets",
    "vectors",
    "video_tags",
    "videos",
    "wordless",
]

# SQLite makes a key the row's own address only when its type is called INTEGER, which there holds 64 bits anyway.
Key = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

videos = Table(
    "videos",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("uri", FileText, nullable=False, unique=True),
    Column("name", FileText, nullable=False, index=True),
    Column("fingerprint", Text),  # null until a version of it was planned
    Column("recipe_key", Text),
    Column("media", JSON),
    Column("start_time", UtcDateTime),
    Column("duration_seconds", Float),
    Column("state", String(16), nullable=False),
    Column("decoder", Text),
    Column("decoder_reason", Text),
    Column("frames_decoded", BigInteger, nullable=False, default=0),
    Column("frames_sampled", BigInteger, nullable=False, default=0),
    Column("frames_encoded", BigInteger, nullable=False, default=0),
    Column("skipped_by_gate", BigInteger, nullable=False, default=0),
    Column("corrupt_frames", BigInteger, nullable=False, default=0),
    Column("decode_errors", BigInteger, nullable=False, default=0),
    Column("lost_seconds", Float, nullable=False, default=0.0),
    Column("damage", JSON, nullable=False, default=list),
    Column("error_type", Text),
    Column("error_message", FileText),
    Column("added_at", UtcDateTime, nullable=False, index=True),
    Column("updated_at", UtcDateTime, nullable=False),
)

video_tags = Table(
    "video_tags",
    metadata,
    Column("video_id", ForeignKey("videos.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", FileText, primary_key=True, index=True),
)

parts = Table(
    "parts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("video_id", ForeignKey("videos.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("number", Integer, nullable=False),
    Column("start_seconds", Float, nullable=False),
    Column("end_seconds", Float, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("recipe_key", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column(
        "superseded", Boolean, nullable=False, default=False
    ),  # content of an older version, kept until the new comes
    Column("decoder", Text),
    Column("decoder_reason", Text),
    Column("covered_start_seconds", Float),
    Column("covered_end_seconds", Float),
    Column("frames_decoded", BigInteger, nullable=False, default=0),
    Column("frames_sampled", BigInteger, nullable=False, default=0),
    Column("frames_encoded", BigInteger, nullable=False, default=0),
    Column("skipped_by_gate", BigInteger, nullable=False, default=0),
    Column("corrupt_frames", BigInteger, nullable=False, default=0),
    Column("decode_errors", BigInteger, nullable=False, default=0),
    Column("lost_seconds", Float, nullable=False, default=0.0),
    Column("damage", JSON, nullable=False, default=list),
    Column("facts", JSON, nullable=False, default=dict),
    Column("error_type", Text),
    Column("error_message", FileText),
    Column("committed_at", UtcDateTime),
    Column("bytes", BigInteger, nullable=False, default=0, server_default="0"),  # thumbnails, token sets and vectors
    Index(None, "video_id", "start_seconds", "bytes"),  # what a stream takes is summed from this alone
)

segments = Table(
    "segments",
    metadata,
    Column("id", Key, primary_key=True, autoincrement=False),
    Column("video_id", ForeignKey("videos.id", ondelete="CASCADE"), nullable=False),
    Column("part_id", ForeignKey("parts.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("number", Integer, nullable=False),
    Column("start_seconds", Float, nullable=False),
    Column("end_seconds", Float, nullable=False),
    Column("boundary", String(16), nullable=False),
    Index(None, "video_id", "start_seconds"),
)

thumbnails = Table(
    "thumbnails",
    metadata,
    Column("segment_id", ForeignKey("segments.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("seconds", Float, nullable=False),
    Column("jpeg", LargeBinary, nullable=False),
)

# `seq` is the key, not the hashed `id`: rows then lie on disk in the order of their coming, and the index reads on from
# where it stopped in one sequential scan.
vectors = Table(
    "vectors",
    metadata,
    Column("seq", Key, primary_key=True, autoincrement=False),
    Column("id", BigInteger, nullable=False, unique=True),
    Column("video_id", ForeignKey("videos.id", ondelete="CASCADE"), nullable=False),
    Column("segment_id", ForeignKey("segments.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("start_seconds", Float, nullable=False),
    Column("end_seconds", Float, nullable=False),
    Column("weight", Float, nullable=False),
    Column("embedding", LargeBinary, nullable=False),  # float16 [D], little-endian, unit length
    Index(None, "video_id", "start_seconds"),
)

removals = Table(
    "removals",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("vector_id", BigInteger, primary_key=True, autoincrement=False),
)

token_sets = Table(
    "token_sets",
    metadata,
    Column("segment_id", ForeignKey("segments.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("compressor", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # safetensors
)

captions = Table(
    "captions",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("segment_id", ForeignKey("segments.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("video_id", ForeignKey("videos.id", ondelete="CASCADE"), nullable=False),
    Column("model", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("start_seconds", Float, nullable=False),
    Column("end_seconds", Float, nullable=False),
    Column("confidence", Float),
    Index(None, "video_id", "start_seconds"),
)

# A captioner looked at the segment and had no words for it: there is no caption by it, and it is not asked again.
wordless = Table(
    "wordless",
    metadata,
    Column("segment_id", ForeignKey("segments.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("model", Text, primary_key=True),
)

# A stream is a video that goes on: its windows are parts of it.
streams = Table(
    "streams",
    metadata,
    Column("video_id", ForeignKey("videos.id", ondelete="CASCADE"), primary_key=True),
    Column("name", FileText, nullable=False),
    Column("state", String(16), nullable=False),
    Column("options", JSON, nullable=False),
    Column("counts", JSON, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("host", Text, nullable=False),
    Column("stop_requested", Boolean, nullable=False, default=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("heartbeat_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("error_type", Text),
    Column("error_message", FileText),
)

# Where a stream's media time stands in the wall clock, for each unbroken stretch of it.
connections = Table(
    "connections",
    metadata,
    Column("video_id", ForeignKey("videos.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("start_seconds", Float, nullable=False),
    Column("utc", UtcDateTime, nullable=False),
    Column("end_seconds", Float),
    Column("reason", Text),
    Column("media", JSON),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("config", JSON, nullable=False),
    Column("command", FileText, nullable=False),
    Column("pid", Integer),
    Column("host", Text),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("created_at", UtcDateTime, nullable=False, index=True),
    Column("started_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
)

job_items = Table(
    "job_items",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("uri", FileText, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("video_id", String(64)),  # no foreign key: the history of a job outlives its videos
    Column("name", FileText),
    Column("state", String(16), nullable=False),
    Column("error_type", Text),
    Column("error_message", FileText),
    Column("numbers", JSON, nullable=False, default=dict),
    Column("updated_at", UtcDateTime, nullable=False),
)

errors = Table(
    "errors",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), index=True),
    Column("video_id", String(64), index=True),
    Column("uri", FileText),
    Column("type", Text, nullable=False),
    Column("message", FileText, nullable=False),
    Column("at_seconds", Float),
    Column("happened_at", UtcDateTime, nullable=False),
)
