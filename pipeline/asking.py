"""Asking a library: what :meth:`pipeline.library.Library.query` does with a question.

A question looks at what is seen (the vectors), at what captions say (their words), or at both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from pipeline.calibration import Calibration, Calibrator
from pipeline.errors import QueryError
from pipeline.live.types import utc_at
from pipeline.media import Span
from pipeline.pictures import read_picture
from pipeline.search import Filter, Moment, SearchOptions, search
from pipeline.search_captions import FUSED_RANKS, caption_moments, fuse

if TYPE_CHECKING:
    from PIL import Image

    from encoders import Encoder
    from pipeline.catalog import Catalog
    from pipeline.index import VectorIndex
    from pipeline.store import Manifest, Store

__all__ = ["MODES", "Asking", "Mode"]

Mode = Literal["visual", "captions", "hybrid"]
MODES: tuple[Mode, ...] = get_args(Mode)


class Asking:
    """The questions of a :class:`pipeline.library.Library`."""

    _store: Store
    _catalog: Catalog
    _search_options: SearchOptions
    _background: tuple[int, npt.NDArray[np.float16]] | None
    _calibrator: Calibrator | None

    if TYPE_CHECKING:

        @property
        def manifest(self) -> Manifest: ...
        @property
        def encoder(self) -> Encoder: ...
        def index(self) -> VectorIndex | None: ...

    def query(
        self,
        text: str | None = None,
        image: Path | str | Image.Image | npt.NDArray[np.uint8] | None = None,
        *,
        like: tuple[str, float] | None = None,
        vector: npt.NDArray[Any] | None = None,
        limit: int = 10,
        video: str | None = None,
        tag: str | None = None,
        start_seconds: float | None = None,
        end_seconds: float | None = None,
        added_after: datetime | None = None,
        confident: bool = False,
        mode: Mode = "visual",
        after: datetime | None = None,
        before: datetime | None = None,
    ) -> list[Moment]:
        """The moments nearest to one of: words, a picture, a point in an indexed video, a vector. Best first.

        Each says beside its score its percentile: of how many background queries in a hundred the best answer in this
        library is worse. It is ``None`` for a bare ``vector``, of which nobody knows what to compare it with, for what
        only captions say, and in a library that is too small to tell (see :mod:`pipeline.calibration`).

        Args:
            text: words.
            image: a picture: its file, a PIL image, or uint8 RGB ``[H, W, 3]``.
            like: ``(video, seconds)``: what is seen there. A video may be named by id, URI or name, here and below.
            vector: ``[D]`` in the model's joint space.
            limit: how many moments at most.
            video: only this one.
            tag: only videos with this tag.
            start_seconds, end_seconds: only this range of media time; moments are cut to it.
            added_after: only videos added after this (aware) time.
            confident: only moments of the percentile ``search.confident_percentile`` or above; often none.
            mode: look at what is seen ("visual"), at what captions say ("captions": no model is loaded), or at both
                ("hybrid"); the latter two need words. See :mod:`pipeline.search_captions`.
            after, before: only what was recorded after and before these (aware) times, of live streams and of files of
                which the start time is known; moments are cut to them.

        Raises:
            QueryError: none or several of the four; a picture that cannot be read; a time outside the video;
                ``confident`` with a bare vector or with captions alone; a mode that there is not, or one of captions
                without words.
            UnknownVideo: no such video.
            EncoderError: the model cannot be loaded or takes no such query.
            FaissMissing: FAISS is not installed.
        """
        asked = {"text": text, "image": image, "like": like, "vector": vector}
        given = [name for name, value in asked.items() if value is not None]
        if len(given) != 1:
            raise QueryError(f"give one of {', '.join(asked)}; got {', '.join(given) or 'none'}")
        if limit < 1:
            raise QueryError(f"limit {limit}: must be at least 1")
        if mode not in MODES:
            raise QueryError(f"mode {mode!r}: must be one of {', '.join(MODES)}")
        if mode != "visual" and text is None:
            raise QueryError(f"mode {mode}: captions are asked by words; give text, not {given[0]}")
        if confident and vector is not None:
            raise QueryError("confident: a bare vector has no percentile; ask by text, image or like")
        if confident and mode == "captions":
            raise QueryError("confident: what captions say has no percentile; use mode visual or hybrid")
        if text is not None and not text.strip():
            raise QueryError("the text of a query must not be empty")
        where = Filter(
            video_id=self._catalog.video(video).id if video is not None else None,
            tag=tag,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            added_after=added_after,
            after=after,
            before=before,
        )
        if mode == "visual":
            moments = self._seen(asked, limit, where)
        else:
            assert text is not None
            ranks = max(limit, FUSED_RANKS) if mode == "hybrid" else limit
            moments = caption_moments(self._catalog, text, limit=ranks, where=where)
            if mode == "hybrid":
                moments = fuse(self._seen(asked, ranks, where), moments, limit)
        if confident:
            moments = [moment for moment in moments if self._search_options.is_confident(moment)]
        return self._dated(moments)

    def _seen(self, asked: dict[str, Any], limit: int, where: Filter) -> list[Moment]:
        """The moments whose pictures are nearest to what was asked, of whatever kind it is."""
        index = self.index()
        if asked["like"] is not None:
            wanted = self._stored_vector(*asked["like"])
        elif index is None or not len(index):
            return []
        elif asked["text"] is not None:
            wanted = self._encode_words([asked["text"]])[0]
        elif asked["vector"] is not None:
            wanted = np.asarray(asked["vector"], dtype=np.float32)
            if wanted.shape != (self.manifest.dimension,):
                raise QueryError(f"vector must be [{self.manifest.dimension}], got {list(wanted.shape)}")
        else:
            image = asked["image"]
            picture = read_picture(image) if isinstance(image, (str, Path)) else image
            wanted = np.asarray(self.encoder.encode_image(picture), dtype=np.float32)
        assert index is not None
        calibration = None
        if asked["vector"] is None:
            calibration = self.calibration("words" if asked["text"] is not None else "pictures")
        return search(
            self._catalog,
            index,
            wanted,
            limit=limit,
            where=where,
            background=self._sample(index.seq),
            calibration=calibration,
            options=self._search_options,
        )

    def _dated(self, moments: list[Moment]) -> list[Moment]:
        """With the wall clock at their start, where it is known."""
        anchors = self._catalog.anchors_of({moment.video for moment in moments})
        found = []
        for moment in moments:
            utc = utc_at(anchors.get(moment.video, []), moment.start_seconds)
            shown = None if utc is None else utc.isoformat(timespec="milliseconds")
            found.append(replace(moment, utc_start=shown))
        return found

    def calibration(self, asked_by: Literal["words", "pictures"]) -> Calibration | None:
        """What scores are worth here, of queries by words or by pictures; made on first use, and again as the library
        grows.

        Returns:
            ``None`` in a library that is too small to tell.

        Raises:
            EncoderError: the model cannot be loaded; it is needed for words.
            FaissMissing: FAISS is not installed.
        """
        index = self.index()
        if index is None:
            return None
        if self._calibrator is None:
            self._calibrator = Calibrator(
                self._store.calibration_folder,
                self._catalog,
                self.manifest.fingerprint,
                self._search_options.background_vectors,
            )
        if asked_by == "words":
            return self._calibrator.words(index, self._encode_words)
        return self._calibrator.pictures(index)

    def _encode_words(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.asarray(self.encoder.encode_query(texts), dtype=np.float32)

    def _stored_vector(self, video: str, seconds: float) -> npt.NDArray[np.float32]:
        record = self._catalog.video(video)
        # Spans are half-open: the vector that covers exactly this time.
        rows = self._catalog.vectors_of(record.id, Span(seconds, float(np.nextafter(seconds, np.inf))))
        if not len(rows):
            known = self._catalog.vectors_of(record.id)
            if not len(known):
                raise QueryError(f"{record.name}: no vectors are stored of it ({record.state})")
            raise QueryError(
                f"{record.name}@{seconds:g}: nothing is stored of that time; it is indexed from "
                f"{known.start_seconds.min():g} to {known.end_seconds.max():g} s"
            )
        stored: npt.NDArray[np.float32] = rows.embedding[0].astype(np.float32)
        return stored

    def _sample(self, seq: int) -> npt.NDArray[np.float16]:
        if self._background is None or self._background[0] != seq:
            self._background = (seq, self._catalog.sample_vectors(self._search_options.background_vectors))
        return self._background[1]
