"""Errors of running jobs."""

from __future__ import annotations

from csat_fusion.errors import LongreelError
from pipeline.errors import UnexpectedError

__all__ = [
    "EngineError",
    "Interrupted",
    "PlacementError",
    "SettingsError",
    "UnexpectedError",
    "UsageError",
    "WorkerLost",
]


class UsageError(LongreelError, ValueError):
    """Arguments that do not go together."""


class SettingsError(LongreelError, ValueError):
    """A recipe, setting or value that is not allowed; the message names it and the nearest known one."""


class PlacementError(LongreelError):
    """A stage asks for more than the cluster has; the message names the stage and the resource."""


class EngineError(LongreelError):
    """Ray could not be started or reached."""


class WorkerLost(LongreelError):
    """A worker process died, several times, on the same part."""


class Interrupted(LongreelError):
    """The job was stopped before its end; what was done is kept, and submitting again goes on."""
