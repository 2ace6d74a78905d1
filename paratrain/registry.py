"""A table of named things: layer types, solvers, fillers, learning-rate policies."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from paratrain.errors import UnknownNameError

__all__ = ["Registry", "nearest"]

T = TypeVar("T")


def nearest(name: str, known: Iterator[str] | list[str], count: int = 3) -> list[str]:
    """Return up to ``count`` of the ``known`` names that look most like ``name``, the best first, whatever their case."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=count, cutoff=0.5)
    return [by_lower[match] for match in matches]


class Registry(Generic[T]):
    """Names and what they stand for.

    ``kind`` is the word that messages use for one entry ("layer type"). Adding a name twice is an error; asking for an
    unknown one names the nearest, or lists them all where none is near.

    >>> fruits: Registry[int] = Registry("fruit")
    >>> fruits.add("apple", 1)
    >>> fruits.get("apple")
    1
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> None:
        """Enter ``entry`` under ``name``. Raises ValueError if the name is taken."""
        if name in self._entries:
            raise ValueError(f"{self.kind} '{name}' is registered twice: {self._entries[name]!r} and {entry!r}")
        self._entries[name] = entry

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that adds what it decorates under ``name``."""

        def decorate(entry: T) -> T:
            self.add(name, entry)
            return entry

        return decorate

    def get(self, name: str) -> T:
        """Return the entry of ``name``. Raises UnknownNameError, which has the nearest names, or else all of them."""
        if name in self._entries:
            return self._entries[name]
        close = nearest(name, list(self._entries))
        near = f"; did you mean {' or '.join(repr(match) for match in close)}?"
        raise UnknownNameError(
            f"unknown {self.kind} '{name}'" + (near if close else f" (known: {', '.join(self.names())})")
        )

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)
