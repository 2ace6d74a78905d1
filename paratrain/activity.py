"""What a rank is doing at the moment: for those who wait for it, and for those who look where the time goes."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Activity", "Listener", "place"]

Listener = Callable[[str, str], None]
"""Is told the phase and the name of what begins; what went on before has ended."""


class Activity:
    """Where a rank is: the iteration, the phase of it, and the name of the layer, file or message that it works on.

    The rank's main thread enters one activity after the other; each ends where the next begins. Any thread may read the
    fields. Phases are ``starting``, ``clear``, ``data``, ``forward``, ``backward``, ``exchange``, ``update``, ``verify``,
    ``test``, ``snapshot``, ``between steps`` and ``ending``.
    """

    def __init__(self) -> None:
        self.iteration = 0
        self.phase = "starting"
        self.name = ""
        self.count = 0
        """Activities entered so far: one that has not grown means a rank that has not moved."""
        self._listeners: tuple[Listener, ...] = ()

    def add_listener(self, listener: Listener) -> None:
        """Tell ``listener``, in this thread, of all that begins from now on; after those added before."""
        self._listeners = (*self._listeners, listener)

    def remove_listener(self, listener: Listener) -> None:
        """Tell it no more."""
        self._listeners = tuple(other for other in self._listeners if other != listener)

    def enter(self, phase: str, name: str = "") -> None:
        """Begin ``phase``, at ``name``."""
        self.phase, self.name = phase, name
        self.count += 1
        for listener in self._listeners:
            listener(phase, name)

    def __str__(self) -> str:
        return place(self.iteration, self.phase, self.name)


def place(iteration: int, phase: str, name: str) -> str:
    """An activity in words: ``iteration 120, backward of 'conv2'``."""
    return f"iteration {iteration}, {phase}" + (f" of '{name}'" if name else "")
