"""Python, the packages that Longreel needs, and the ones that get in each other's way."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version

from jobs.checks.base import Check, Context, bad, good, warn

__all__ = [
    "check_decord",
    "check_faiss",
    "check_opencv",
    "check_python",
    "check_requirements",
    "check_torch",
    "judge_requirements",
]

_OLDEST, _NEWEST = (3, 10), (3, 13)
# Named on their own because bug reports need them; the other requirements are only counted.
_SHOWN = ("open_clip_torch", "ray", "av", "decord2", "opencv-python-headless")


def check_python(_context: Context) -> Iterator[Check]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if _OLDEST <= sys.version_info[:2] <= _NEWEST:
        yield good("python", found)
    else:
        yield bad("python", found, "make the environment with Python 3.10, 3.11, 3.12 or 3.13")
    try:
        yield good("longreel", version("longreel"))
    except PackageNotFoundError:
        yield warn("longreel", "runs from its source, not installed", 'pip install -e ".[cpu]" in the checkout')


def check_requirements(_context: Context) -> Iterator[Check]:
    """Every declared requirement is there, in a version that was asked for."""
    try:
        declared = requires("longreel") or []
    except PackageNotFoundError:
        return
    yield from judge_requirements(declared)


def judge_requirements(declared: list[str]) -> Iterator[Check]:
    """Compare requirements, such as ``av>=14``, with what is installed; those of extras are left out."""
    from packaging.requirements import Requirement

    fine = 0
    for text in declared:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = requirement.name
        advice = f"pip install '{name}{requirement.specifier}'"
        try:
            found = version(name)
        except PackageNotFoundError:
            yield bad(name, "not installed", advice)
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            yield bad(name, f"{found} is installed, {requirement.specifier} is needed", advice)
            continue
        fine += 1
        if name in _SHOWN:
            yield good(name, found)
    yield good("requirements", f"{fine} packages are there, in versions that serve")


def check_torch(_context: Context) -> Iterator[Check]:
    advice = "install torch and torchvision together, in versions made for each other: pip install -U torch torchvision"
    try:
        import torch
        import torchvision
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: torchvision for another torch
        yield bad("torch", _first_line(error), advice)
        return
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU only"
    detail = f"{torch.__version__} (built for {build}), torchvision {torchvision.__version__}"
    yield good("torch", f"{detail}, {torch.get_num_threads()} threads")


def check_faiss(_context: Context) -> Iterator[Check]:
    from pipeline.errors import FaissMissing
    from pipeline.index import load_faiss

    sources = sorted(set(packages_distributions().get("faiss", [])))
    try:
        faiss = load_faiss()
    except FaissMissing as error:
        advice = "pip install faiss-cpu, or faiss-gpu-cu12 where there is an NVIDIA GPU; never both"
        yield bad("faiss", _first_line(error), advice)
        return
    detail = f"{faiss.__version__} from {' and '.join(sources) or 'an unknown package'}"
    if len(sources) > 1:
        advice = f"they overwrite each other's files: pip uninstall {' '.join(sources)}, then install one of them"
        yield warn("faiss", detail, advice)
    else:
        yield good("faiss", detail)


def check_decord(_context: Context) -> Iterator[Check]:
    sources = set(packages_distributions().get("decord", []))
    if sources == {"decord2"}:
        yield good("decord", "the module comes from decord2 alone")
    elif not sources:
        yield bad("decord", "not installed", "pip install decord2")
    else:
        yield bad(
            "decord",
            f"the module comes from {' and '.join(sorted(sources))}; only decord2 is kept up",
            "pip uninstall decord decord2, then pip install decord2",
        )


def check_opencv(_context: Context) -> Iterator[Check]:
    sources = {name: version(name) for name in sorted(set(packages_distributions().get("cv2", [])))}
    repair = f"pip uninstall {' '.join(sources)}, then pip install opencv-python-headless"
    try:
        import cv2
    except (ImportError, OSError) as error:
        advice = f"the build with windows needs libGL, the headless one does not: {repair}"
        yield bad("opencv", _first_line(error), advice if "libGL" in str(error) else repair)
        return
    detail = f"{cv2.__version__} from {' and '.join(f'{name} {found}' for name, found in sources.items())}"
    if len(set(sources.values())) > 1:
        yield warn("opencv", detail, f"different versions overwrite each other's files: {repair}")
    else:
        yield good("opencv", detail)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
