"""Full-text search of captions: any of the words, the rarer ones first.

What is asked is words, never the syntax of a database: each is looked up as a quoted phrase.
Words are stemmed as English ("runs" finds "running"), since that is what captioners write. Words that every sentence
has are left out, in PostgreSQL by its dictionary, here by the same list: without that, "a dog in a park" would find
every caption with an "a" in it.

SQLite ranks by BM25 (FTS5). PostgreSQL has no such rank; there a caption scores the sum of its words' inverse document
frequencies, shorter ones first among equals, which is BM25 where no word comes twice.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from sqlalchemy import Select, column, func, literal, literal_column, select, table, text

from pipeline.catalog.base import CatalogPart
from pipeline.catalog.filtering import filtered
from pipeline.catalog.filters import Filter
from pipeline.catalog.models import captions
from pipeline.catalog.records import CaptionHit, CaptionRecord
from pipeline.errors import QueryError
from pipeline.media import Span

__all__ = ["CaptionSearchCatalog", "words_of"]

_words = table("captions_words", column("rowid"))
_match: Any = literal_column("captions_words")  # FTS5: the table's name stands for all its columns
_english: Any = literal_column("'english'::regconfig")  # as in the index, else that is not used

# Inverse document frequencies as FTS5 reckons them. A word that is found in most captions is worth next to nothing.
_RATED = text(
    """
    WITH asked AS (
        SELECT DISTINCT phraseto_tsquery('english'::regconfig, word) AS one FROM unnest(CAST(:words AS text[])) AS word
    ), rated AS (
        SELECT one, (SELECT count(*) FROM captions WHERE to_tsvector('english'::regconfig, text) @@ one) AS found,
            (SELECT count(*) FROM captions) AS total
        FROM asked WHERE numnode(one) > 0
    )
    SELECT captions.id AS id, sum(greatest(1e-6, ln((total - found + 0.5) / (found + 0.5)))) AS score
    FROM rated JOIN captions ON to_tsvector('english'::regconfig, captions.text) @@ rated.one
    GROUP BY captions.id
    """
)

# PostgreSQL's english.stop.
_STOP_TEXT = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers herself it its
itself they them their theirs themselves what which who whom this that these those am is are was were be been being have
has had having do does did doing a an the and but if or because as until while of at by for with about against between
into through during before after above below to from up down in out on off over under again further then once here there
when where why how all any both each few more most other some such no nor not only own same so than too very s t can
will just don should now
"""
_STOP_WORDS = frozenset(_STOP_TEXT.split())
_WORD = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """The words of a question that are looked up, each once; none for a text without any."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return [word for word in dict.fromkeys(words) if word not in _STOP_WORDS]


class CaptionSearchCatalog(CatalogPart):
    """Captions: search them by words."""

    def has_captions(self) -> bool:
        """Whether anything in the library has a caption."""
        with self._read() as rows:
            return rows.execute(select(captions.c.id).limit(1)).first() is not None

    def search_captions(self, text: str, where: Filter | None = None, limit: int = 10) -> list[CaptionHit]:
        """The captions that have any of these words, best first; those that overlap the times of ``where`` count.

        Raises:
            QueryError: a limit below 1.
        """
        if limit < 1:
            raise QueryError(f"limit {limit}: must be at least 1")
        words = words_of(text)
        if not words:
            return []
        with self._read() as rows:
            build = _postgresql if rows.dialect.name == "postgresql" else _sqlite
            query = filtered(rows, build(words), captions, where or Filter())
            order: Any = (literal_column("score").desc(), literal_column("length"))
            place = (captions.c.video_id, captions.c.start_seconds, captions.c.id)
            found = rows.execute(query.order_by(*order, *place).limit(limit)).all()
        return [
            CaptionHit(
                row.id,
                row.segment_id,
                CaptionRecord(
                    row.video_id, row.model, row.text, Span(row.start_seconds, row.end_seconds), row.confidence
                ),
                float(row.score),
            )
            for row in found
        ]


def _sqlite(words: list[str]) -> Select[Any]:
    phrases = " OR ".join(f'"{word}"' for word in words)
    score = (-func.bm25(_match)).label("score")
    query = select(captions, score, literal(0).label("length"))
    return query.join(_words, _words.c.rowid == captions.c.id).where(_match.op("MATCH")(phrases))


def _postgresql(words: list[str]) -> Select[Any]:
    hits = _RATED.bindparams(words=words).columns(column("id"), column("score")).subquery("hits")
    length = func.length(func.to_tsvector(_english, captions.c.text)).label("length")
    return select(captions, hits.c.score, length).join(hits, hits.c.id == captions.c.id)
