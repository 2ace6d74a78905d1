"""The helper: the small process beside the ranks of a host that looks at them, speaks with the hub, and can end them.

It is started by :func:`paratrain.watching.start.start_helper`, with its configuration as a line on stdin, answers with a line
on stdout, and leaves when its ranks have. It is no child of a rank and in a session of its own, so that launchers which end the
ranks leave it the time to report.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import selectors
import socket
import time
from typing import Any

from paratrain.watching.addresses import own_addresses
from paratrain.watching.death import count_memory_kills
from paratrain.watching.hub import Hub, death_message, states_message
from paratrain.watching.launchers import Launchers
from paratrain.watching.links import Greeting, HubSearch, listen, ways_to
from paratrain.watching.local import LocalRank, accept_rank
from paratrain.watching.report import write_report
from paratrain.watching.settings import WatchSettings
from paratrain.watching.state import name_ranks
from paratrain.watching.wire import LONGEST_BYTES, Wire

__all__ = ["Helper"]

logger = logging.getLogger(__name__)

# For ranks to introduce themselves: else they have died before they could.
_FIRST_RANK_S = 20.0
_BUSY_S = 0.05
# Anybody may connect to the hub's port: so long, so many at a time, and for a message of so many bytes.
_STRANGER_S, _MOST_STRANGERS, _HELLO_BYTES = 10.0, 1000, 4096
# A helper whose host is alone speaks later the higher its number: whoever speaks first may end the others.
_STAGGER_S, _LONGEST_STAGGER_S = 0.1, 3.0


class Helper:
    """One helper's state and its loop."""

    def __init__(self, configuration: dict[str, Any]) -> None:
        self.node: int = configuration["node"]
        self.node_count: int = configuration["node_count"]
        self.local_count: int = configuration["local_count"]
        self.rank_count: int = configuration["rank_count"]
        self.token: str = configuration["token"]
        self.host = socket.gethostname()
        self.settings = WatchSettings(**configuration["settings"])
        self.selector = selectors.DefaultSelector()
        self.ranks: dict[int, LocalRank] = {}
        self.launchers = Launchers()
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.name = f"paratrain-{secrets.token_hex(12)}"
        self.listener.bind(f"\0{self.name}")
        self.listener.listen(self.local_count + 8)
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept_rank)
        self.hub: Hub | None = None
        self.hub_wire: Wire | None = None
        self.search: HubSearch | None = None
        self.strangers: dict[Wire, tuple[float, Greeting]] = {}
        self.hub_heard_at = 0.0
        self.unsent: list[dict[str, Any]] = []
        self.memory_kills = count_memory_kills()
        self.started_at = time.monotonic()
        self.kill_at: float | None = None
        self.is_lost = False
        self.report: str | None = None
        self.report_at = 0.0
        self.ready: dict[str, Any] = {"name": self.name}
        if self.node == 0:
            self._become_hub()
            if self.node_count > 1:
                hub_listener = listen()
                self.selector.register(hub_listener, selectors.EVENT_READ, lambda: self._accept_helper(hub_listener))
                port = hub_listener.getsockname()[1]
                self.ready |= {"host": self.host, "addresses": own_addresses(), "port": port}

    # -- the loop ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Watch until the ranks have gone."""
        next_beat = last = time.monotonic()
        while not self._is_over():
            busy = self.kill_at is not None or self.report is not None or (self.hub and self.hub.is_deciding)
            wait_s = _BUSY_S if busy else max(0.0, next_beat - time.monotonic())
            for key, _ in self.selector.select(wait_s):
                key.data()
            now = time.monotonic()
            if now - last > max(5.0, 2 * self.settings.beat_s):  # this process was stopped itself
                self.hub_heard_at += now - last
                for rank in self.ranks.values():
                    rank.pass_over(now - last)
            last = now
            is_beat = now >= next_beat
            if is_beat:
                next_beat = now + self.settings.beat_s
                self._look(now)
            if self.hub is not None and (is_beat or self.hub.is_deciding):
                self.hub.decide(now)
            self._end_ranks(now)

    def _is_over(self) -> bool:
        now = time.monotonic()
        if not self.ranks:
            return now - self.started_at > _FIRST_RANK_S
        if any(not rank.is_gone for rank in self.ranks.values()) or len(self.ranks) < self.local_count:
            return all(rank.is_gone for rank in self.ranks.values()) and now - self.started_at > _FIRST_RANK_S
        if self.hub is None:
            return True
        # A lost host does not close its wire.
        return not self.hub.has_to_report and (self.hub.is_ended or not self.hub.wires)

    def _look(self, now: float) -> None:
        for rank in self.ranks.values():
            self._check(rank, now)
        if self.kill_at is None:
            for process in self.launchers.take_ended():
                self._tell({"kind": "orphaned", "why": f"the launcher (process {process}) has ended before its ranks"})
        self.memory_kills = count_memory_kills()
        if any(not rank.is_gone for rank in self.ranks.values()):
            self._tell(states_message([rank.state(now) for rank in self.ranks.values() if not rank.is_gone]))
        if self.hub is not None:
            self.hub.beat()
        elif self.hub_wire is not None and now - self.hub_heard_at > self.settings.lost_s:
            self._lose_hub(f"nothing was heard from it for {now - self.hub_heard_at:.0f} s", now)
        if self.search is not None and not self.search.found.empty():
            self._reach_hub(self.search.found.get())
        for wire in [wire for wire, (since, _) in self.strangers.items() if now - since > _STRANGER_S]:
            self._refuse(wire)

    # -- ranks of this host --------------------------------------------------------------------------------------

    def _accept_rank(self) -> None:
        accepted = accept_rank(self.listener, self.token, self.host)
        if accepted is None:
            return
        rank, hello = accepted
        self.ranks[rank.rank] = rank
        self.launchers.add_above(rank.process)
        self.selector.register(rank.wire, selectors.EVENT_READ, lambda: self._hear_rank(rank))
        if rank.descriptor is not None:
            self.selector.register(rank.descriptor, selectors.EVENT_READ, lambda: self._check(rank, time.monotonic()))
        hub = hello["hub"]
        if self.node > 0 and self.search is None and hub is not None:
            greeting = {"node": self.node, "host": self.host}
            self.search = HubSearch(ways_to(hub, self.host), hub["port"], greeting, self.token)

    def _hear_rank(self, rank: LocalRank) -> None:
        for message in rank.wire.receive():
            if message["kind"] == "trace":
                self._tell({"kind": "trace", "rank": rank.rank, "text": message["text"]})
        if not rank.wire.is_open:
            self.selector.unregister(rank.wire)
            self._check(rank, time.monotonic())

    def _check(self, rank: LocalRank, now: float) -> None:
        """If a rank has ended, tell so, once."""
        if rank.is_gone or not rank.has_ended():
            return
        if rank.descriptor is not None:
            self.selector.unregister(rank.descriptor)
        if rank.wire.is_open:
            self.selector.unregister(rank.wire)
        death = rank.death(count_memory_kills() > self.memory_kills)
        if death is not None and self.kill_at is None:
            self._tell(death_message(death))
        rank.close()

    def _end_ranks(self, now: float) -> None:
        """Do what has been decided, in time."""
        if self.report is not None and now >= self.report_at:
            if any(not rank.is_gone for rank in self.ranks.values()):
                write_report(self.report, self.settings.snapshot_prefix)
            self.report = None
            self._obey({"kind": "end", "is_lost": True})
        if self.kill_at is not None and now >= self.kill_at:
            for rank in self.ranks.values():
                rank.kill()

    # -- the hub, and orders from it -------------------------------------------------------------------------------

    def _tell(self, message: dict[str, Any]) -> None:
        if self.hub is not None:
            self.hub.take(self.node, message, time.monotonic())
        elif self.hub_wire is not None:
            self.hub_wire.send(message)
        elif message["kind"] != "states":
            self.unsent.append(message)

    def _obey(self, message: dict[str, Any]) -> None:
        if message["kind"] == "trace":
            for number in message["ranks"]:
                if number in self.ranks:
                    self.ranks[number].wire.send(message)
        elif message["kind"] == "end" and self.kill_at is None:
            self.kill_at, self.is_lost = time.monotonic() + self.settings.grace_s, message["is_lost"]
            for rank in self.ranks.values():
                rank.end()

    def _become_hub(self) -> None:
        self.hub = Hub(self.node, self.rank_count, self.settings, self._obey, time.monotonic())
        self.hub.join(self.node, self.host, time.monotonic())
        for message in self.unsent:
            self._tell(message)

    def _accept_helper(self, listener: socket.socket) -> None:
        try:
            wire = Wire(listener.accept()[0], _HELLO_BYTES)
        except OSError:  # it has gone again
            return
        self.strangers[wire] = time.monotonic(), Greeting(self.token)
        self.selector.register(wire, selectors.EVENT_READ, lambda: self._greet(wire))
        if len(self.strangers) > _MOST_STRANGERS:
            self._refuse(wire)

    def _refuse(self, wire: Wire) -> None:
        del self.strangers[wire]
        self.selector.unregister(wire)
        wire.close()

    def _greet(self, wire: Wire) -> None:
        assert self.hub is not None
        _, greeting = self.strangers[wire]
        try:
            is_welcome = any(greeting.answer(wire, message) for message in wire.receive())
        except ValueError:
            wire.is_open = False
        if not wire.is_open:
            self._refuse(wire)
        elif is_welcome:
            node = int(greeting.hello["node"])
            del self.strangers[wire]
            wire.longest_bytes = LONGEST_BYTES
            self.hub.join(node, str(greeting.hello["host"]), time.monotonic(), wire)
            self.selector.modify(wire, selectors.EVENT_READ, lambda: self._hear_helper(node, wire))

    def _hear_helper(self, node: int, wire: Wire) -> None:
        assert self.hub is not None
        now = time.monotonic()
        for message in wire.receive():
            self.hub.take(node, message, now)
        if not wire.is_open:
            self.selector.unregister(wire)
            self.hub.drop(node, wire, now)

    def _reach_hub(self, found: Wire | str) -> None:
        self.search = None
        if isinstance(found, str):
            logger.warning(
                "Ranks on %s are watched on their own, since %s: a lost host will not be noticed", self.host, found
            )
            self._become_hub()
            return
        self.hub_wire, self.hub_heard_at = found, time.monotonic()
        self.selector.register(found, selectors.EVENT_READ, self._hear_hub)
        for message in self.unsent:
            found.send(message)

    def _hear_hub(self) -> None:
        assert self.hub_wire is not None
        self.hub_heard_at = now = time.monotonic()
        for message in self.hub_wire.receive():
            if message["kind"] == "leave":  # it has failed, not its host
                self.selector.unregister(self.hub_wire)
                self.hub_wire = None
                self._become_hub()
                return
            self._obey(message)
        if not self.hub_wire.is_open:
            self._lose_hub("its connection was closed (or only its watcher has ended)", now)

    def _lose_hub(self, why: str, now: float) -> None:
        assert self.hub_wire is not None
        self.selector.unregister(self.hub_wire)
        self.hub_wire.close()
        self.hub_wire = None
        present = [rank.state(now) for rank in self.ranks.values() if not rank.is_gone]
        if self.kill_at is not None or not any(not state.is_done for state in present):
            return
        places = "".join(f"\n  rank {one.rank} (process {one.process}) was last at {one.where}" for one in present)
        self.report = (
            f"{name_ranks([one.rank for one in present])} of {self.rank_count} on {self.host}: "
            f"the host of rank 0 is lost: {why}{places}"
        )
        self.report_at = now + min(_STAGGER_S * self.node, _LONGEST_STAGGER_S)

    # -- the end -------------------------------------------------------------------------------------------------

    def leave(self, why: str = "") -> None:
        """Tell the other helpers that this one goes."""
        message = {"kind": "leave", "why": why}
        wires = list(self.hub.wires.values()) if self.hub is not None else [self.hub_wire] if self.hub_wire else []
        for wire in wires:
            wire.send(message)
            with contextlib.suppress(OSError):  # what was sent before goes first
                wire.socket.shutdown(socket.SHUT_WR)
        if self.is_lost and not why:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # launchers wait for the last who could write there
            self.launchers.end()
