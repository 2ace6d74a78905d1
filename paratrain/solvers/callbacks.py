"""What a solver calls while it trains: how other ranks, and scripts, take part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Callback", "FunctionsCallback"]


class Callback(Protocol):
    """What a solver calls on every rank while it trains."""

    def on_start(self) -> None:
        """A step begins: on return the newest parameters are in the net."""

    def on_gradient_ready(self) -> None:
        """This rank's gradients are complete: on return the root's are those to update with."""

    def on_finish(self) -> None:
        """The last step of a call of ``step`` is done: on return the last update is in the net."""


class FunctionsCallback:
    """pycaffe's form of a callback: two functions, and nothing at the end."""

    def __init__(self, on_start: Callable[[], object], on_gradient_ready: Callable[[], object]) -> None:
        self._on_start = on_start
        self._on_gradient_ready = on_gradient_ready

    def on_start(self) -> None:
        """Call the first function."""
        self._on_start()

    def on_gradient_ready(self) -> None:
        """Call the second function."""
        self._on_gradient_ready()

    def on_finish(self) -> None:
        """Nothing."""
