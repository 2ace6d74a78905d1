"""Where a rank is, as the watchers tell each other and the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paratrain.activity import place

__all__ = ["ANY", "Death", "RankState", "name_ranks"]

ANY = -1
"""As ``waits_for``: for ranks that it does not know."""


@dataclass(frozen=True)
class RankState:
    """Where a rank was when its helper looked last. Durations, not times, since hosts have different clocks."""

    rank: int
    host: str
    process: int
    iteration: int = 0
    phase: str = "starting"
    name: str = ""
    count: int = 0
    """Activities entered so far."""
    there_s: float = 0.0
    """For how long it has been in this activity."""
    waits_for: int | None = None
    """The rank that it waits for, or ANY; None where it does not wait."""
    waits_s: float = 0.0
    stopped_s: float = 0.0
    """For how long it has been stopped, as by SIGSTOP."""
    is_done: bool = False
    """It has said that it is about to end, as it should."""

    @property
    def where(self) -> str:
        """``iteration 120, backward of 'conv2'``."""
        return place(self.iteration, self.phase, self.name)

    def describe(self, size: int) -> str:
        """``rank 2 of 4 on node7, at iteration 120, backward of 'conv2'``: how errors of ranks begin."""
        return f"rank {self.rank} of {size} on {self.host}, at {self.where}"


@dataclass(frozen=True)
class Death:
    """The end of a rank that did not say it would end."""

    state: RankState
    cause: str
    """``killed by SIGKILL``."""
    traceback: str = ""
    is_explained: bool = False
    """Whether the rank has written itself why it ends."""
    is_killed: bool = False
    """By SIGKILL or SIGTERM, with which a launcher ends the ranks that are left over; or nobody knows how."""


def name_ranks(ranks: Sequence[int]) -> str:
    """``rank 3``, ``ranks 0 and 1``, ``ranks 0 to 5 and 7``."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    words: list[str] = []
    for run in runs:
        words += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run)
    text = " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
    return f"rank{'' if len(ranks) == 1 else 's'} {text}"
