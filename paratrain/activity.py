"""What a rank is doing at the moment: for those who wait for it, and for those who look where the time goes."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Activity", "Listener"]

Listener = Callable[[str, str], None]
"""Is told the phase and the name of what begins; what went on before has ended."""


class Activity:
    """Where a rank is: the iteration, the phase of it, and the name of the layer, file or message that it works on.

    The rank's main thread enters one activity after the other; each ends where the next begins. Any thread may read the
    fields. Phases are ``starting``, ``data``, ``forward``, ``backward``, ``exchange``, ``update``, ``test``, ``snapshot``
    and ``ending``.
    """

    def __init__(self) -> None:
        self.iteration = 0
        self.phase = "starting"
        self.name = ""
        self.count = 0
        """Activities entered so far: one that has not grown means a rank that has not moved."""
        self.listener: Listener | None = None

    def enter(self, phase: str, name: str = "") -> None:
        """Begin ``phase``, at ``name``."""
        self.phase, self.name = phase, name
        self.count += 1
        if self.listener is not None:
            self.listener(phase, name)

    def __str__(self) -> str:
        where = f" of '{self.name}'" if self.name else ""
        return f"iteration {self.iteration}, {self.phase}{where}"
