"""Live streams and their connections, how many bytes a part takes, and full-text search of captions."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "streams",
        sa.Column("video_id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("stop_requested", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error_type", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["video_id"], ["videos.id"], name=op.f("fk_streams_video_id_videos"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("video_id", name=op.f("pk_streams")),
    )
    op.create_table(
        "connections",
        sa.Column("video_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("start_seconds", sa.Float(), nullable=False),
        sa.Column("utc", sa.DateTime(timezone=True), nullable=False),
        sa.Column("end_seconds", sa.Float(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("media", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(
            ["video_id"], ["videos.id"], name=op.f("fk_connections_video_id_videos"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("video_id", "number", name=op.f("pk_connections")),
    )
    op.add_column("parts", sa.Column("bytes", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index(
        op.f("ix_parts_video_id_start_seconds_bytes"), "parts", ["video_id", "start_seconds", "bytes"], unique=False
    )
    op.execute("INSERT INTO counters (name, value) VALUES ('removals_floor', 0)")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("CREATE INDEX ix_captions_words ON captions USING gin (to_tsvector('english', text))")
    else:
        _sqlite_words()


def _sqlite_words() -> None:
    """An FTS5 table over the captions' own text, kept by triggers, so that no writer can forget it.

    Stemmed (porter), because who asks for "a dog runs" means "dogs running" as well; what captioners write is English.
    """
    op.execute(
        "CREATE VIRTUAL TABLE captions_words USING fts5(text, content='captions', content_rowid='id', "
        "tokenize='porter unicode61 remove_diacritics 2')"
    )
    add = "INSERT INTO captions_words (rowid, text) VALUES (new.id, new.text);"
    drop = "INSERT INTO captions_words (captions_words, rowid, text) VALUES ('delete', old.id, old.text);"
    op.execute(f"CREATE TRIGGER captions_words_added AFTER INSERT ON captions BEGIN {add} END")
    op.execute(f"CREATE TRIGGER captions_words_gone AFTER DELETE ON captions BEGIN {drop} END")
    op.execute(f"CREATE TRIGGER captions_words_changed AFTER UPDATE OF id, text ON captions BEGIN {drop} {add} END")
    op.execute("INSERT INTO captions_words (captions_words) VALUES ('rebuild')")
