"""A small event simulation of exchanges: transfers that wait for each other and share what they pass through.

A transfer first spends its link's latency, in which it takes nothing from others; then it moves its bytes at the rate that
max-min fairness gives it: all transfers on a segment get equal shares of its capacity, except those that another segment
or their own link holds lower, whose rest the others share (progressive filling: Bertsekas and Gallager, "Data Networks",
6.5.2). Rates change whenever a transfer begins or ends; in between time jumps. Fair sharing is what PCIe switches,
NVSwitches, memory and networks come near to; that several transfers share a link in turns would give the same sums.

Where no link is shared the closed formulas of `cost` and `exchanges` say the same. Where links are shared they may differ:
a formula charges an edge for all others of its step, however short the time for which they really meet, and overlooks
transfers of other steps that do meet.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from paratrain.topology.costs.contention import Fabric, Segment
from paratrain.topology.costs.exchanges import ring_round
from paratrain.topology.costs.schedules import Task, broadcast_tasks, reduce_tasks, round_tasks
from paratrain.topology.tree import Tree

_ROUNDS_IN_FULL = 64  # members up to which every round of a ring is simulated


@dataclass(frozen=True)
class Simulated:
    """The simulated seconds of an exchange; `transfer_count` of its transfers were followed."""

    reduce_s: float
    broadcast_s: float
    transfer_count: int

    @property
    def total_s(self) -> float:
        """The seconds of the whole exchange."""
        return self.reduce_s + self.broadcast_s


def simulate_trees(fabric: Fabric, trees: Sequence[Tree], byte_count: int, chunk_count: int = 1) -> Simulated:
    """Simulate an exchange over one tree, or over several on shards, first up and then down."""
    up, down = reduce_tasks(trees, byte_count, chunk_count), broadcast_tasks(trees, byte_count, chunk_count)
    return Simulated(finish_time(fabric, up), finish_time(fabric, down), len(up) + len(down))


def simulate_ring(fabric: Fabric, ring: Sequence[int], byte_count: int) -> Simulated:
    """Simulate a ring's reduce-scatter and its all-gather, which takes as long.

    All rounds of a ring are the same transfers. Of more than 64 members a few rounds are simulated, and the last one's
    time stands for each of the rest.
    """
    rounds = len(ring) - 1
    transfers = ring_round(ring, byte_count)
    if len(ring) <= _ROUNDS_IN_FULL:
        tasks = round_tasks([transfers] * rounds)
        seconds = finish_time(fabric, tasks)
        return Simulated(seconds, seconds, 2 * len(tasks))
    few = 4
    tasks = round_tasks([transfers] * few)
    seconds = finish_time(fabric, tasks)
    each = seconds - finish_time(fabric, round_tasks([transfers] * (few - 1)))
    seconds += (rounds - few) * each
    return Simulated(seconds, seconds, 2 * len(tasks))


def finish_time(fabric: Fabric, tasks: Sequence[Task]) -> float:
    """The seconds until the last of these tasks has ended."""
    return _Run(fabric, tasks).finish()


class _Run:
    """The state of one simulation."""

    def __init__(self, fabric: Fabric, tasks: Sequence[Task]) -> None:
        self.fabric = fabric
        self.tasks = tasks
        self.waits = [len(task.after) for task in tasks]
        self.followers: list[list[int]] = [[] for _ in tasks]
        for number, task in enumerate(tasks):
            for before in task.after:
                self.followers[before].append(number)
        self.paths = [fabric.path(task.source, task.target) for task in tasks]
        self.own_rate = [fabric.figure(task.source, task.target).bytes_per_s for task in tasks]
        self.rest = [task.byte_count for task in tasks]
        self.rate = [0.0] * len(tasks)
        self.since = [0.0] * len(tasks)  # the time for which `rest` is right
        self.on: dict[Segment, set[int]] = {}  # the tasks that move bytes over a segment now
        self.events: list[tuple[float, int, int, int]] = []  # time, 0 = begins to move or 1 = ends, task, version
        self.version = [0] * len(tasks)

    def finish(self) -> float:
        for number, waits in enumerate(self.waits):
            if waits == 0:
                self.start(number, 0.0)
        now = 0.0
        while self.events:
            if self.is_stale(self.events[0]):
                heapq.heappop(self.events)
                continue
            now = self.events[0][0]
            touched: set[int] = set()
            while self.events and self.events[0][0] <= now * (1 + 1e-12):
                event = heapq.heappop(self.events)
                if not self.is_stale(event):
                    _, ends, number, _ = event
                    touched |= self.end(number, now) if ends else self.begin(number, now)
            self.share(touched, now)
        assert not any(self.waits), "tasks wait for each other in a circle"
        return now

    def is_stale(self, event: tuple[float, int, int, int]) -> bool:
        """Whether the task's rate has changed since this event was foreseen."""
        return event[3] != self.version[event[2]]

    def start(self, number: int, now: float) -> None:
        """A task whose predecessors have ended: its latency begins."""
        task = self.tasks[number]
        latency = self.fabric.figure(task.source, task.target).latency_s
        heapq.heappush(self.events, (now + latency, 0, number, self.version[number]))

    def begin(self, number: int, now: float) -> set[int]:
        """A task begins to move bytes; returns the tasks whose rates may change."""
        self.since[number] = now
        met = {number}
        for segment in self.paths[number]:
            tasks = self.on.setdefault(segment, set())
            met |= tasks
            tasks.add(number)
        return met

    def end(self, number: int, now: float) -> set[int]:
        met: set[int] = set()
        self.version[number] += 1
        self.rest[number] = 0.0
        for segment in self.paths[number]:
            self.on[segment].discard(number)
            met |= self.on[segment]
        for follower in self.followers[number]:
            self.waits[follower] -= 1
            if self.waits[follower] == 0:
                self.start(follower, now)
        return met

    def share(self, touched: Iterable[int], now: float) -> None:
        """Give new rates to the tasks that are connected to those `touched` over segments in use."""
        moving = self.connected(touched)
        for number, rate in self.fair_rates(moving).items():
            self.rest[number] -= self.rate[number] * (now - self.since[number])
            self.since[number] = now
            self.rate[number] = rate
            self.version[number] += 1
            ends = now + max(self.rest[number], 0.0) / rate
            heapq.heappush(self.events, (ends, 1, number, self.version[number]))

    def connected(self, touched: Iterable[int]) -> list[int]:
        found: dict[int, None] = {}
        waiting = [number for number in sorted(touched) if self.is_moving(number)]
        while waiting:
            number = waiting.pop()
            if number not in found:
                found[number] = None
                waiting.extend(other for segment in self.paths[number] for other in self.on[segment])
        return list(found)

    def is_moving(self, number: int) -> bool:
        return any(number in self.on.get(segment, ()) for segment in self.paths[number][:1])

    def fair_rates(self, moving: Sequence[int]) -> dict[int, float]:
        """Max-min fair rates: raise all alike; whoever meets a full segment, or its own link's rate, stays there."""
        left = {segment: self.fabric.capacity(segment) for number in moving for segment in self.paths[number]}
        count = dict.fromkeys(left, 0)
        for number in moving:
            for segment in self.paths[number]:
                count[segment] += 1
        rising = sorted(moving, key=lambda number: self.own_rate[number])
        rates: dict[int, float] = {}
        while rising:
            level = min((left[segment] / count[segment] for segment in left if count[segment]), default=float("inf"))
            if self.own_rate[rising[0]] <= level * (1 + 1e-12):
                fixed = [rising[0]]
                level = self.own_rate[rising[0]]
            else:
                full = {s for s in left if count[s] and left[s] / count[s] <= level * (1 + 1e-12)}
                fixed = [number for number in rising if any(segment in full for segment in self.paths[number])]
            for number in fixed:
                rates[number] = level
                for segment in self.paths[number]:
                    left[segment] -= level
                    count[segment] -= 1
            gone = set(fixed)
            rising = [number for number in rising if number not in gone]
        return rates
