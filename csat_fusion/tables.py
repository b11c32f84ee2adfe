"""Tables of names: what can be made by name, without loading it before it is made.

Nothing here needs torch, so a name can be checked where nothing is made yet.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from importlib import import_module
from typing import Any

from csat_fusion.errors import CompressionError

__all__ = ["Entry", "Table", "nearest_name"]


@dataclass(frozen=True)
class Entry:
    """A class or function by its module and name, and arguments that its place in the table fixes.

    ``needs`` is a distribution beyond torch, and what to use where that is missing.
    """

    module: str
    name: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, str] | None = None

    def load(self) -> Any:
        """What the entry names.

        Raises:
            CompressionError: a distribution that it needs is not installed.
        """
        try:
            return reduce(getattr, self.name.split("."), import_module(self.module))
        except ModuleNotFoundError as error:
            if self.needs is None or error.name != self.needs[0]:
                raise
            package, instead = self.needs
            raise CompressionError(
                f"{self.name} needs {package}, which is not installed: pip install {package}, or use {instead}"
            ) from error

    def parameters(self) -> dict[str, inspect.Parameter]:
        """What may be given by name, with what base classes take where a class passes it on."""
        made = self.load()
        found: dict[str, inspect.Parameter] = {}
        for each in made.__mro__ if inspect.isclass(made) else [made]:
            parameters = inspect.signature(each).parameters.values()
            for parameter in parameters:
                if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                    found.setdefault(parameter.name, parameter)
            if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
                break
        return {name: parameter for name, parameter in found.items() if name not in self.fixed}

    def make(self, *args: Any, given: Collection[str] = (), **options: Any) -> Any:
        """Call it. ``given`` are the arguments that the caller's own face names, and so are no options to be listed.

        Raises:
            CompressionError: it has no option of that name, or needs one that is missing.
        """
        parameters = self.parameters()
        allowed = [name for name in parameters if name not in given]
        for option in options:
            if option not in parameters:
                has = f"it has {', '.join(allowed)}" if allowed else "it has none"
                raise CompressionError(f"{self.name} has no option {option!r}{nearest_name(option, allowed)}; {has}")
        for option in allowed:
            if option not in options and parameters[option].default is inspect.Parameter.empty:
                raise CompressionError(f"{self.name} needs the option {option!r}")
        return self.load()(*args, **self.fixed, **options)


class Table(dict[str, Entry]):
    """Entries by name; ``kind`` is what they are, for messages."""

    def __init__(self, kind: str, entries: Mapping[str, Entry]) -> None:
        super().__init__(entries)
        self.kind = kind

    def find(self, name: str) -> Entry:
        """The entry of that name.

        Raises:
            CompressionError: there is none; the message says which there are.
        """
        if name not in self:
            raise CompressionError(f"no {self.kind} {name!r}{nearest_name(name, self)}; there are {', '.join(self)}")
        return self[name]


def nearest_name(name: str, names: Iterable[str]) -> str:
    """``" (did you mean 'ward'?)"``, or nothing where no name is near."""
    near = difflib.get_close_matches(str(name), list(names), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
