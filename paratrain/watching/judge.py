"""What the hub makes of the news from all hosts: warnings, reports, and the decision to end the job. No sockets, no clock."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from paratrain.watching.blame import Stall, find_stall
from paratrain.watching.settings import WatchSettings
from paratrain.watching.state import Death, RankState, name_ranks

__all__ = ["Action", "Judge", "Kind"]

# After the first death, for the news of others that came before it or say more.
_COLLECT_S = 0.2
# For the tracebacks of ranks that are waited for.
_TRACE_S = 2.0
# Between a report and the end of the ranks, so that launchers have passed it on.
_FORWARD_S = 0.3
# For ranks to end by themselves when one has reported its own error.
_EXPLAINED_S = 3.0
# A helper that was itself not run for longer must not take the silence for that of others.
_OWN_GAP_S = 5.0


class Kind(enum.Enum):
    """What the hub has to do."""

    WARN = "warn"
    """Write ``text`` as a line of the log."""
    TRACE = "trace"
    """Ask ``ranks`` for their tracebacks."""
    REPORT = "report"
    """Write ``text`` as why the job ends."""
    END = "end"
    """End all ranks."""


@dataclass(frozen=True)
class Action:
    """One thing to do."""

    kind: Kind
    text: str = ""
    ranks: Sequence[int] = ()


@dataclass
class _Node:
    host: str
    heard_at: float
    states: dict[int, RankState] = field(default_factory=dict)


class Judge:
    """Takes in news with the time on one clock, in seconds; :meth:`decide`, asked now and then, returns what to do."""

    def __init__(self, rank_count: int, settings: WatchSettings, now: float) -> None:
        self._size = rank_count
        self._settings = settings
        self._nodes: dict[int, _Node] = {}
        self._deaths: list[Death] = []
        self._traces: dict[int, str] = {}
        self._stall: Stall | None = None
        self._next_warning_s = settings.warn_s
        self._asked_at = now
        self._report_at: float | None = None
        self._report = ""
        self._end_at: float | None = None
        self.is_ended = False
        """Whether it has been decided, for good, that all ranks end."""
        self.has_lost_host = False
        """Whether they end because a host is lost."""

    # -- news ----------------------------------------------------------------------------------------------------

    def hear(self, node: int, host: str, states: Sequence[RankState], now: float) -> None:
        """A host has told where its ranks are."""
        found = self._nodes.setdefault(node, _Node(host, now))
        found.heard_at = now
        found.states.update((state.rank, state) for state in states)

    def leave(self, node: int) -> None:
        """The ranks of a host have ended as they should, or are not watched any more."""
        self._nodes.pop(node, None)

    def die(self, death: Death, now: float) -> None:
        """A rank has ended without having said so before."""
        self._deaths.append(death)
        if len(self._deaths) == 1 and self._end_at is None:
            self._report_at = now + _COLLECT_S

    def lose(self, node: int, why: str, now: float) -> None:
        """A host is lost: ``why`` follows upon "is lost: "."""
        lost = self._nodes.pop(node, None)
        if lost is None or self._report_at is not None or self._end_at is not None:
            return
        self.has_lost_host = True
        # It may be lost before it has told of any.
        ranks = f"{name_ranks(sorted(lost.states))} of {self._size}" if lost.states else "the ranks"
        places = "".join(
            f"\n  rank {rank} (process {state.process}) was last at {state.where}"
            for rank, state in sorted(lost.states.items())
        )
        self._begin_report(f"{ranks} on {lost.host}: the host is lost: {why}{places}", now)

    def trace(self, texts: Mapping[int, str]) -> None:
        """Tracebacks that were asked for have come."""
        self._traces.update(texts)

    # -- decisions -----------------------------------------------------------------------------------------------

    def decide(self, now: float) -> list[Action]:
        """Return what to do now."""
        gap_s, self._asked_at = now - self._asked_at, now
        if gap_s > max(_OWN_GAP_S, 2 * self._settings.beat_s):
            for node in self._nodes.values():
                node.heard_at += gap_s
        if self._end_at is not None:
            return self._end(now)
        if self._report_at is not None:
            return self._write_report(now)
        for number, node in list(self._nodes.items()):
            if now - node.heard_at > self._settings.lost_s:
                self.lose(number, f"nothing was heard from it for {now - node.heard_at:.0f} s", now)
                return []
        return self._look_at_waits(now)

    @property
    def is_deciding(self) -> bool:
        """Whether there is a reason to end that has not led to the end yet."""
        return not self.is_ended and (self._report_at is not None or self._end_at is not None)

    @property
    def has_to_report(self) -> bool:
        """Whether there is something to report that has not been."""
        return self._report_at is not None and self._end_at is None

    @property
    def states(self) -> list[RankState]:
        """What is known of all ranks."""
        return sorted(
            (state for node in self._nodes.values() for state in node.states.values()), key=lambda state: state.rank
        )

    def _look_at_waits(self, now: float) -> list[Action]:
        states, settings = self.states, self._settings
        stopped = [state for state in states if state.stopped_s > settings.lost_s]
        if stopped and any(state.stopped_s == 0 for state in states if not state.is_done):
            first = stopped[0]
            self._begin_report(
                f"{first.describe(self._size)}: stopped by a signal (process {first.process}) for {first.stopped_s:.0f} s",
                now,
            )
            return []
        stall = find_stall(states, 0.0)
        if stall is None or stall.waited_s <= settings.warn_s:
            self._next_warning_s = settings.warn_s
        if stall is None:
            return []
        if settings.abort_s and stall.unmoved_s > settings.abort_s:
            self._stall = find_stall(states, settings.abort_s)
            assert self._stall is not None
            self._report_at = now + _TRACE_S
            return [Action(Kind.TRACE, ranks=[state.rank for state in self._stall.culprits])]
        if settings.warn_s and stall.waited_s > self._next_warning_s:
            long = find_stall(states, self._next_warning_s)
            assert long is not None
            while self._next_warning_s < stall.waited_s:
                self._next_warning_s *= 2
            return [Action(Kind.WARN, long.describe(self._size))]
        return []

    def _begin_report(self, text: str, now: float) -> None:
        self._report, self._report_at = text, now

    def _write_report(self, now: float) -> list[Action]:
        assert self._report_at is not None
        traces_are_here = self._stall is not None and all(state.rank in self._traces for state in self._stall.culprits)
        if now < self._report_at and not traces_are_here:
            return []
        if self._deaths:
            death = self._cause()
            if death.is_explained:
                self._end_at = now + _EXPLAINED_S
                return []
            text = f"{death.state.describe(self._size)}: {death.cause} (process {death.state.process})"
            text += _indented(death.traceback)
        elif self._stall is not None:
            note = f" (--stall-abort {self._settings.abort_s:g})"
            text = self._stall.describe(self._size, note)
            for state in self._stall.culprits:
                if self._traces.get(state.rank):
                    text += f"\nrank {state.rank}:{_indented(self._traces[state.rank])}"
        else:
            text = self._report
        self._end_at = now + _FORWARD_S
        return [Action(Kind.REPORT, text)]

    def _cause(self) -> Death:
        """The death that is most likely the first: launchers end the other ranks by SIGKILL or SIGTERM within milliseconds.

        News of one host comes in the order of the deaths.
        """
        explained = next((death for death in self._deaths if death.is_explained), None)
        by_itself = next((death for death in self._deaths if not death.is_killed or death.traceback), None)
        return explained or by_itself or self._deaths[0]

    def _end(self, now: float) -> list[Action]:
        assert self._end_at is not None
        if self.is_ended or now < self._end_at:
            return []
        self.is_ended = True
        return [Action(Kind.END)]


def _indented(text: str) -> str:
    return "".join(f"\n  {line}" for line in text.rstrip().splitlines())
