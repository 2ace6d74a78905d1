"""Who is waited for: what can be said from where all ranks are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paratrain.watching.state import ANY, RankState, name_ranks

__all__ = ["Stall", "find_stall"]


@dataclass(frozen=True)
class Stall:
    """Ranks that have waited for long, and those that they wait for."""

    waiting: Sequence[RankState]
    culprits: Sequence[RankState]
    """The ranks that are behind and do not wait themselves; where all wait, those that are furthest behind."""

    @property
    def waited_s(self) -> float:
        """The longest wait."""
        return max(state.waits_s for state in self.waiting)

    @property
    def unmoved_s(self) -> float:
        """For how long somebody has waited, and one of those that are waited for has not moved."""
        return min(self.waited_s, max(state.there_s for state in self.culprits))

    @property
    def all_wait(self) -> bool:
        """Whether nobody is at work."""
        return all(state.waits_for is not None for state in self.culprits)

    def describe(self, size: int, note: str = "") -> str:
        """``ranks 0 and 1 of 3 have waited 60 s for rank 2 on node7 (process 77): iteration 9, data of 'mnist', for 61 s``."""
        ranks = name_ranks([state.rank for state in self.waiting])
        have = "has" if len(self.waiting) == 1 else "have"
        begin = f"{ranks} of {size} {have} waited {self.waited_s:.0f} s{note}"
        if self.all_wait:
            places = "; ".join(map(_waiting_place, self.culprits))
            return f"{begin}, and no rank is at work. Furthest behind: {places}"
        return f"{begin} for {'; for '.join(map(_place, self.culprits))}"


def find_stall(states: Sequence[RankState], longer_than_s: float) -> Stall | None:
    """Return who has waited longer than so many seconds, and for whom; None where nobody has.

    Ranks that have left neither wait nor are waited for, unless all others wait.
    """
    present = [state for state in states if not state.is_done]
    waiting = [state for state in present if state.waits_for is not None and state.waits_s > longer_than_s]
    if not waiting:
        return None
    at_work = [state for state in present if state.waits_for is None]
    candidates = at_work or present
    behind = min(state.iteration for state in candidates)
    return Stall(waiting, [state for state in candidates if state.iteration == behind])


def _place(state: RankState) -> str:
    stopped = ", stopped by a signal" if state.stopped_s > 0 else ""
    return f"rank {state.rank} on {state.host} (process {state.process}): {state.where}, for {state.there_s:.0f} s{stopped}"


def _waiting_place(state: RankState) -> str:
    whom = "others" if state.waits_for in (ANY, None) else f"rank {state.waits_for}"
    return f"rank {state.rank} on {state.host} (process {state.process}), which waits for {whom}: {state.where}"
