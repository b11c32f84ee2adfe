"""The Python face of a library: open it, ask it, list it, remove from it.

with Library.open("my-videos", model="openclip:ViT-B-32/laion2b_s34b_b79k") as library:
    library.add("footage/")
    for moment in library.query("a dog runs into the sea"):
        print(moment.name, moment.start_seconds, moment.score)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.asking import Asking
from pipeline.calibration import Calibrator
from pipeline.catalog import Catalog, VideoRecord
from pipeline.errors import ModelMismatch, NotALibrary
from pipeline.index import IndexOptions, VectorIndex
from pipeline.ingest import IngestOptions, ItemResult
from pipeline.search import Moment, SearchOptions
from pipeline.store import Manifest, Store

if TYPE_CHECKING:
    from encoders import Encoder

__all__ = ["Library", "Moment"]


class Library(Asking):
    """Everything that is kept about a collection of videos. A context manager; use :meth:`open`.

    Reading takes no lock and works while a job writes; writing (:meth:`remove`, :meth:`writing`) needs the library's
    one writer lock and raises ``LibraryBusy`` while another process has it.
    """

    def __init__(
        self,
        store: Store,
        *,
        encoder: Encoder | None = None,
        device: str = "auto",
        index_options: IndexOptions | None = None,
        search_options: SearchOptions | None = None,
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._owns_encoder = encoder is None
        self._asked_model: str | None = None
        self._device = device
        self._index_options = index_options or IndexOptions()
        self._search_options = search_options or SearchOptions()
        self._index: VectorIndex | None = None
        self._background: tuple[int, npt.NDArray[np.float16]] | None = None
        self._calibrator: Calibrator | None = None
        self._catalog = Catalog(store.catalog_path, dimension=store.manifest.dimension or None)

    @classmethod
    def open(
        cls,
        path: Path | str,
        model: str | None = None,
        *,
        create: bool = True,
        encoder: Encoder | None = None,
        device: str = "auto",
        index_options: IndexOptions | None = None,
        search_options: SearchOptions | None = None,
    ) -> Library:
        """Open the library in a folder, or make one there.

        Args:
            path: its folder.
            model: name of the model that makes its vectors (``openclip:ARCH/PRETRAINED``). Needed to make a library;
                an existing one knows its own, and a name given is compared with it. The model itself is loaded only
                when something has to be encoded.
            create: make the library when there is none.
            encoder: a loaded model to use instead of loading one; the caller closes it.
            device: where to load the model.

        Raises:
            NotALibrary: there is none and ``create`` is false or no model was named; a folder with other content; a
                damaged manifest or catalog.
            ModelMismatch: it was made with another model; both are named.
            CatalogTooNew, DiskFull, LibraryError.
        """
        if encoder is not None:
            if model is not None and model != encoder.info.name:
                raise ModelMismatch(f"{path}: model {model!r} was named, the encoder given is {encoder.info.name!r}")
            model = encoder.info.name
        if Store.exists(path):
            store = Store.open(path)
            if model is not None:
                store.check_name(model)
            if encoder is not None and store.is_bound:
                store.check_model(encoder.info)
        elif not create:
            store = Store.open(path)  # says what is wrong with it
        elif model is None:
            raise NotALibrary(f"{Path(path).absolute()}: no library there; name a model to make one")
        else:
            store = Store.create(path, encoder.info if encoder is not None else model)
        library = cls(store, encoder=encoder, device=device, index_options=index_options, search_options=search_options)
        library._asked_model = model
        return library

    # -- what it is --------------------------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        return self._store.path

    @property
    def model(self) -> str:
        """Name of the model that makes this library's vectors."""
        return self._store.manifest.model

    @property
    def manifest(self) -> Manifest:
        return self._store.manifest

    @property
    def store(self) -> Store:
        return self._store

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    @property
    def encoder(self) -> Encoder:
        """The library's model, loaded on first use and checked to be the one that made the vectors.

        Raises:
            ModelMismatch: the model of that name has changed since.
            EncoderError: it cannot be loaded.
        """
        if self._encoder is None:
            from encoders import load_encoder

            # The library's own precision: vectors of the same kind on both sides, and nothing to measure at start.
            precision = self._store.manifest.precision
            loaded = load_encoder(self.model, device=self._device, precision=precision or "auto")
            try:
                if self._store.is_bound:
                    self._store.check_model(loaded.info)
            except BaseException:
                loaded.close()
                raise
            self._encoder = loaded
        return self._encoder

    def index(self) -> VectorIndex | None:
        """The vector index, brought up to date; ``None`` for a library that holds no vectors yet.

        Raises:
            FaissMissing: FAISS is not installed.
        """
        if self._index is None:
            self._refresh()
            if not self._store.is_bound:
                return None
            self._index = VectorIndex.open(
                self._store.index_folder, self._catalog, self._store.manifest.dimension, self._index_options
            )
        else:
            self._index.sync()
        return self._index

    def _refresh(self) -> None:
        if not self._store.is_bound:  # a job may have begun since
            self._store = Store.open(self._store.path)
            if self._asked_model is not None:
                self._store.check_name(self._asked_model)
            self._catalog.dimension = self._store.manifest.dimension or None

    # -- videos ------------------------------------------------------------------------------------------------------

    def videos(self, tag: str | None = None, state: str | None = None) -> list[VideoRecord]:
        """The videos, in the order of their coming; those with a tag or in a state (pending, done, failed,
        live)."""
        return self._catalog.videos(tag=tag, state=state)

    def __iter__(self) -> Iterator[VideoRecord]:
        return iter(self.videos())

    def __len__(self) -> int:
        return self._catalog.count_videos()

    def __bool__(self) -> bool:
        return True  # an empty library is still one

    def __contains__(self, video_id: object) -> bool:
        return isinstance(video_id, str) and self._catalog.find_video(video_id) is not None

    def video(self, video: str) -> VideoRecord:
        """The video of this id, URI or name.

        Raises:
            UnknownVideo: none, or several; the message gives near names.
        """
        return self._catalog.video(video)

    def add(
        self, *sources: str | Path, tags: tuple[str, ...] = (), options: IngestOptions | None = None
    ) -> list[ItemResult]:
        """Index videos in this process: files, folders, globs, manifests, ``http(s)://`` and ``s3://`` addresses.

        What is indexed and unchanged is skipped. A video that cannot be used is among the results, with state "failed"
        and its error; the others go on. For many videos use ``longreel submit``, which spreads them over Ray.

        Raises:
            NothingToDo, SourceNotFound, ManifestError: for what was named.
            LibraryBusy: another process writes to this library.
            EncoderError: the model cannot be loaded.
            LibraryError: the library itself cannot go on.
        """
        from pipeline.adding import add_sources
        from pipeline.sources import find_sources

        items = find_sources([str(source) for source in sources])
        if tags:
            items = [replace(item, tags=tuple(dict.fromkeys((*item.tags, *tags)))) for item in items]
        with self.writing("add") as catalog:
            self._store.bind(self.encoder.info)
            catalog.dimension = self.manifest.dimension
            return list(add_sources(catalog, self.encoder, items, options or IngestOptions()))

    def remove(self, video: str) -> VideoRecord:
        """Delete a video and everything that is known of it; the file itself is not touched.

        Returns:
            What was removed.

        Raises:
            UnknownVideo: no such video.
            LibraryBusy: another process writes to this library.
        """
        record = self._catalog.video(video)
        with self.writing("remove"):
            removed = self._catalog.remove_video(record.id)
        if self._index is not None:
            self._index.sync()
        return removed

    @contextmanager
    def writing(self, command: str) -> Iterator[Catalog]:
        """Hold the writer lock, with the catalog to write to.

        Args:
            command: what is running, for others to read; it must hold no credentials.

        Raises:
            LibraryBusy: another process writes to this library.
        """
        with self._store.lock(command):
            self._refresh()
            yield self._catalog

    def close(self) -> None:
        """Let go of files and of the model, if it was loaded here. Closing twice is harmless."""
        if self._index is not None:
            self._index.close()
            self._index = None
        if self._encoder is not None and self._owns_encoder:
            self._encoder.close()
        self._encoder = None
        self._catalog.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Library({str(self.path)!r}, model={self.model!r})"
