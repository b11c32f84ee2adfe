"""Errors of the pipeline. All are :class:`LongreelError`; what a message needs is in its arguments.

``type(error).__name__`` is what jobs record and ``--json`` prints, so a class name is part of the contract.
"""

from csat_fusion.errors import LongreelError

__all__ = [
    "CacheTooSmall",
    "CatalogTooNew",
    "DecoderCrashed",
    "DecoderHung",
    "DiskFull",
    "EncodingFailed",
    "ExtraMissing",
    "FaissMissing",
    "IndexDamaged",
    "InputError",
    "LibraryBusy",
    "LibraryError",
    "LongreelError",
    "ManifestError",
    "MediaDamaged",
    "MediaUnreadable",
    "ModelMismatch",
    "NoVideoStream",
    "NotALibrary",
    "NotAStream",
    "NotAVideo",
    "NothingToDo",
    "OptionError",
    "OutputError",
    "PackError",
    "PredictionError",
    "QueryError",
    "RemoteError",
    "SegmentGone",
    "SourceError",
    "SourceNotFound",
    "SourceUnreadable",
    "StillImage",
    "StreamBusy",
    "StreamCodec",
    "StreamEnded",
    "StreamNotFound",
    "StreamRefused",
    "StreamTimeout",
    "StreamUnauthorised",
    "TruthError",
    "UnexpectedError",
    "UnknownScheme",
    "UnknownVideo",
]


class OptionError(LongreelError, ValueError):
    """A setting outside what is allowed; the message names the setting, the value and the allowed ones."""


class InputError(LongreelError, ValueError):
    """An argument that a person gave and that cannot be used."""


class OutputError(LongreelError):
    """A file that was to be written cannot be; the message names it and why."""


class NothingToDo(InputError):
    """A folder, glob or manifest that names no video."""


class ManifestError(InputError):
    """A manifest line that cannot be read; the message gives file and line."""


class ExtraMissing(LongreelError, ImportError):
    """A package that only an extra brings is not installed; the message names package and extra."""


class PackError(InputError):
    """An image-text pack that cannot be read, or has no such split or picture; the message gives file and line."""


class TruthError(InputError):
    """Right moments that cannot be judged by: a line that cannot be read, an empty span, the same query twice."""


class PredictionError(InputError):
    """Answers that cannot be scored: a line that cannot be read, a query that the truth does not ask."""


# -- sources ---------------------------------------------------------------------------------------------------------


class SourceError(LongreelError):
    """One source cannot be used. The job goes on without it."""


class SourceNotFound(SourceError):
    """No such file or address."""


class SourceUnreadable(SourceError):
    """It is there, but may not be read (permissions, a directory where a file was expected)."""


class RemoteError(SourceError):
    """A server refused, timed out or broke off; the message carries no credentials."""


class CacheTooSmall(SourceError):
    """A remote file larger than the whole local cache may be."""


class NotAVideo(SourceError):
    """Its content is no media container that any decoder knows."""


class MediaUnreadable(SourceError):
    """A media container that cannot be opened, or from which not one frame decodes."""


class NoVideoStream(SourceError):
    """Media without a video stream (audio only, or a cover picture beside audio)."""


class StillImage(SourceError):
    """A still picture; ask with ``query --image`` instead of indexing it."""


class MediaDamaged(SourceError):
    """The decoder gave up in the middle and cannot go on."""


class DecoderCrashed(SourceError):
    """The process that decoded this source died (segmentation fault, killed, out of memory)."""


class DecoderHung(SourceError):
    """The decoder gave no frame for the set time and was killed."""


# -- live ------------------------------------------------------------------------------------------------------------


class UnknownScheme(SourceError):
    """An address of a kind that cannot be watched live; the message names those that can."""


class StreamRefused(SourceError):
    """Nobody listens there, or the server will not serve."""


class StreamUnauthorised(SourceError):
    """The server wants other credentials, or forbids it."""


class StreamNotFound(SourceError):
    """The server has no such stream, or there is no such host, file or device."""


class StreamTimeout(SourceError):
    """Nothing came for the set time."""


class StreamEnded(SourceError):
    """The stream came to its end, or broke off."""


class StreamCodec(SourceError):
    """A stream without a picture that can be decoded: unknown codec, no size, nothing but damage."""


class NotAStream(SourceError):
    """What the server sends is no video: a web page, a text, a still picture."""


class EncodingFailed(LongreelError):
    """The model gave nothing usable for a frame; the message says which."""


class UnexpectedError(LongreelError):
    """Something that Longreel does not foresee went wrong with one source; the job's log has the traceback, or in this
    process the error's cause."""


# -- library ---------------------------------------------------------------------------------------------------------


class LibraryError(LongreelError):
    """The library cannot do what was asked."""


class NotALibrary(LibraryError):
    """The folder holds no Longreel library, or a damaged one."""


class ModelMismatch(LibraryError):
    """The library's vectors were made by another model or another preprocessing; both are named."""


class LibraryBusy(LibraryError):
    """Another process is writing to this library; the message says which."""


class StreamBusy(LibraryError):
    """This stream is being watched already; the message says by which process."""


class CatalogTooNew(LibraryError):
    """The catalog was made by a newer Longreel."""


class UnknownVideo(LibraryError, KeyError):
    """No video of that id, name or URI; the message gives near names."""

    def __str__(self) -> str:  # KeyError would print the repr of its argument
        return str(self.args[0]) if self.args else ""


class SegmentGone(LibraryError):
    """A segment that was there is no more: it was replaced, pruned, or removed with its video."""


class DiskFull(LibraryError):
    """The disk that holds the library has no space left."""


class FaissMissing(LibraryError, ImportError):
    """FAISS is not installed; the message names the two extras that bring it."""


class IndexDamaged(LibraryError):
    """The vector index on disk cannot be read; it is rebuilt from the catalog."""


class QueryError(LongreelError, ValueError):
    """A query that cannot be asked (empty text, unreadable image, a time outside the video)."""
