"""open_clip's tagged weights on the Hugging Face hub: in the cache, or brought there with progress and time-outs.

Files, names and cache are those of open_clip itself, so what it has downloaded before is found. HF_HOME, HF_HUB_CACHE,
HF_HUB_OFFLINE and HF_ENDPOINT are honoured by the hub's own client.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from encoders.base import Progress, ProgressCallback
from encoders.errors import WeightsDamaged, WeightsUnavailable
from encoders.openclip.weights import file_identity, hash_file

__all__ = ["cache_folder", "find_cached", "hub_source", "locate", "obtain"]

_TIMEOUT_SECONDS = 10.0


def hub_source(record: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The repository of a tag and the file names to look for in it, safetensors first.

    Raises:
        WeightsUnavailable: for a tag that is not on the hub.
    """
    from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    repository, _, filename = str(record.get("hf_hub") or "").rpartition("/")
    if not repository:
        raise WeightsUnavailable(f"these weights are not on the hub; download {record.get('url')!r} and name its path")
    if not filename:
        return repository, (HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME)
    stem, dot, suffix = filename.rpartition(".")
    safe = (f"{stem}.safetensors",) if dot and suffix in ("bin", "pth") else ()
    return repository, (*safe, filename)


def cache_folder() -> str:
    """Where the hub's client keeps its files."""
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


def find_cached(record: dict[str, Any]) -> Path | None:
    """The weights file of a tag where it is in the cache; no network is used."""
    from huggingface_hub import try_to_load_from_cache

    if not record.get("hf_hub"):
        return None
    repository, filenames = hub_source(record)
    for filename in filenames:
        path = try_to_load_from_cache(repository, filename)
        if isinstance(path, str):
            return Path(path)
    return None


def obtain(name: str, record: dict[str, Any], progress: ProgressCallback | None) -> Path:
    """The weights file of a tag, from the cache, else downloaded.

    Raises:
        WeightsUnavailable: when it is not cached and cannot be had: offline, no such file, no connection. Nothing
            hangs: the first answer is awaited for ten seconds.
    """
    if cached := find_cached(record):
        return cached
    from huggingface_hub import hf_hub_download

    repository, filename, size = locate(name, record)
    if progress is not None:
        amount = f", {size / 1e6:.0f} MB" if size else ""
        progress(Progress(f"downloading {name} from {repository} ({filename}{amount})", 0, size))
    options: dict[str, Any] = {"etag_timeout": _TIMEOUT_SECONDS}
    if progress is not None and "tqdm_class" in inspect.signature(hf_hub_download).parameters:
        options["tqdm_class"] = _progress_bar(progress, f"downloading {name}")
    try:
        path = Path(str(hf_hub_download(repository, filename, **options)))
    except Exception as error:
        raise _unavailable(name, repository, f"and the download failed ({_first_line(error)})") from error
    _check(path)
    return path


def locate(name: str, record: dict[str, Any]) -> tuple[str, str, int | None]:
    """Ask the hub for the weights file of a tag: its repository, its name there and its size in bytes, where told.

    Raises:
        WeightsUnavailable: offline, no such file, no connection, no answer within ten seconds.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.constants import HF_HUB_OFFLINE

    repository, filenames = hub_source(record)
    if HF_HUB_OFFLINE:
        raise _unavailable(name, repository, "and HF_HUB_OFFLINE forbids the network")
    reason = ""
    for filename in filenames:
        try:
            facts = get_hf_file_metadata(hf_hub_url(repository, filename), timeout=_TIMEOUT_SECONDS)
        except Exception as error:  # of whichever HTTP library the hub's client uses; the last one is raised below
            if _is_missing(error):
                reason = reason or f"and the hub has no such file: {_first_line(error)}"
                continue
            raise _unavailable(name, repository, f"and the hub cannot be reached ({_first_line(error)})") from error
        return repository, filename, facts.size
    raise _unavailable(name, repository, reason)


def _check(path: Path) -> None:
    """Compare a fresh download with the hash that the hub gave for it, where it gave one; drop a damaged one."""
    blob, stated = path.resolve(), file_identity(path)
    actual = f"sha256:{hash_file(path)}"
    if stated != actual:
        path.unlink()
        blob.unlink(missing_ok=True)
        raise WeightsDamaged(f"{path} arrived with {actual}, the hub states {stated}; it was deleted, fetch it again")


def _is_missing(error: BaseException) -> bool:
    from huggingface_hub import errors

    # A repository that is gone or closed is no missing file: another file name would not help.
    return isinstance(error, errors.EntryNotFoundError)


def _unavailable(name: str, repository: str, why: str) -> WeightsUnavailable:
    from encoders.bundled.files import Bundle

    limits = "; ".join(Bundle("tiny").card().limits)
    return WeightsUnavailable(
        f"the weights of {name} ({repository} on the Hugging Face hub) are not in the cache {cache_folder()} {why}. "
        f"Two ways on: `longreel models fetch {name}` where there is a network (a cache copied from there is named in "
        f"HF_HOME); or, for a new library, `--model tiny`, which comes with Longreel and has its limits: {limits}"
    )


def _progress_bar(progress: ProgressCallback, message: str) -> type[Any]:
    from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]

    class Reporter(tqdm):  # type: ignore[misc, type-arg, unused-ignore]
        """Counts as tqdm does, and tells the callback instead of drawing."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)  # an option of the hub's own bars
            super().__init__(*args, **{**kwargs, "disable": True})
            self.total_bytes = kwargs.get("total")
            self.done_bytes = int(kwargs.get("initial") or 0)

        def update(self, n: float | None = 1) -> None:
            self.done_bytes += int(n or 0)
            progress(Progress(message, self.done_bytes, self.total_bytes))

    return Reporter


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
