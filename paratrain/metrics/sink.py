"""What takes in the figures of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

__all__ = ["Figure", "Sink"]

Figure = float | int | str | Sequence[Any] | Mapping[str, Any] | None
"""A number, a text, or lists and maps of them."""


class Sink(Protocol):
    """Takes in record after record, and passes over those that are not for it."""

    def write(self, **figures: Figure) -> None:
        """Take in one record; whoever follows the run sees it at once. Raises ParatrainError where it cannot be written."""

    def close(self) -> None:
        """Nothing can be written any more."""
