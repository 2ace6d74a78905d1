"""The hub: the part of one helper that decides for all. It also stands in on a host that is alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from paratrain.watching.judge import Judge, Kind
from paratrain.watching.report import write_report
from paratrain.watching.settings import WatchSettings
from paratrain.watching.state import Death, RankState
from paratrain.watching.wire import Wire

__all__ = ["Hub", "death_message", "states_message"]

logger = logging.getLogger(__name__)


def states_message(states: list[RankState]) -> dict[str, Any]:
    """The heartbeat of a host."""
    return {"kind": "states", "states": [asdict(state) for state in states]}


def death_message(death: Death) -> dict[str, Any]:
    """The news that a rank has died."""
    return {"kind": "death", **asdict(death)}


class Hub:
    """Takes the messages of helpers to the judge, and the judge's decisions back to them.

    ``obey`` takes the orders for the helper that this is part of, whose host has number ``node``.
    """

    def __init__(
        self,
        node: int,
        rank_count: int,
        settings: WatchSettings,
        obey: Callable[[dict[str, Any]], None],
        now: float,
    ) -> None:
        self.node = node
        self.wires: dict[int, Wire] = {}
        self._have_come: set[Wire] = set()
        self._hosts: dict[int, str] = {}
        self._judge = Judge(rank_count, settings, now)
        self._settings = settings
        self._obey = obey

    @property
    def is_ended(self) -> bool:
        """Whether all ranks have been told to end."""
        return self._judge.is_ended

    @property
    def is_deciding(self) -> bool:
        """Whether something has happened that is not yet reported and done."""
        return self._judge.is_deciding

    @property
    def has_to_report(self) -> bool:
        """Whether something has happened that is to be reported and has not been."""
        return self._judge.has_to_report

    def join(self, node: int, host: str, now: float, wire: Wire | None = None) -> None:
        """A helper has come; from now on the silence of another host is noticed, also if it never tells of its ranks."""
        self._hosts[node] = host
        if wire is not None:
            self.wires[node] = wire
            self._judge.hear(node, host, [], now)

    def take(self, node: int, message: dict[str, Any], now: float) -> None:
        """A message from the helper of a host."""
        kind = message["kind"]
        if kind == "here":
            self._have_come.add(self.wires[node])
        elif kind == "states":
            states = [RankState(**state) for state in message["states"]]
            self._judge.hear(node, self._hosts[node], states, now)
        elif kind == "death":
            values = {name: value for name, value in message.items() if name not in ("kind", "state")}
            self._judge.die(Death(RankState(**message["state"]), **values), now)
        elif kind == "trace":
            self._judge.trace({int(message["rank"]): message["text"]})
        elif kind == "orphaned":
            self._judge.lose(node, message["why"], now)
        elif kind == "leave":
            if message.get("why"):
                logger.warning("The ranks on %s are not watched any more: %s", self._hosts[node], message["why"])
            self._judge.leave(node)

    def drop(self, node: int, wire: Wire, now: float) -> None:
        """The connection to a helper is gone; it has told so before, or its host is lost.

        One that had given up before it was welcomed is not lost: it comes, or has come, by another connection.
        """
        wire.close()
        if self.wires.get(node) is not wire:
            return
        del self.wires[node]
        if wire in self._have_come:
            self._judge.lose(node, "its connection was closed (or only its watcher has ended)", now)
        else:
            self._judge.leave(node)

    def beat(self) -> None:
        """Let the other helpers know that this one is there."""
        for wire in self.wires.values():
            wire.send({"kind": "beat"})

    def decide(self, now: float) -> None:
        """Do what there is to do."""
        for action in self._judge.decide(now):
            if action.kind is Kind.WARN:
                logger.warning("%s", action.text)
            elif action.kind is Kind.TRACE:
                self._order({"kind": "trace", "ranks": list(action.ranks)})
            elif action.kind is Kind.REPORT:
                write_report(action.text, self._settings.snapshot_prefix)
            else:
                self._order({"kind": "end", "is_lost": self._judge.has_lost_host})

    def _order(self, message: dict[str, Any]) -> None:
        for wire in self.wires.values():
            wire.send(message)
        self._obey(message)
