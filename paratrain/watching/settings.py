"""How long watchers wait for what."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["EXIT_WATCH", "WatchSettings"]

EXIT_WATCH = 75
"""The exit code of ranks that watching ends: for a while it did not work, and a new start may."""


@dataclass(frozen=True)
class WatchSettings:
    """Durations in seconds. The first two are the user's; the rest add up to what is promised, and is shorter in tests."""

    warn_s: float = 60.0
    """Warn of a wait that takes longer, and again whenever it has doubled; 0 for never."""
    abort_s: float = 1800.0
    """End the job when a wait takes longer and those that are waited for have not moved as long; 0 for never."""
    lost_s: float = 20.0
    """A host of which nothing was heard for so long is lost, and so is a rank that was stopped for so long."""
    beat_s: float = 1.0
    """Between two messages of a helper, and between two looks at its ranks."""
    grace_s: float = 2.0
    """For ranks to end themselves before they are killed."""
    snapshot_prefix: str = ""
    """Where the snapshots of the run are, so that reports can name the newest."""
