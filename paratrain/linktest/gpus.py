"""The test of the links between GPUs: one child process drives each GPU, and this process tells them what to do."""

from __future__ import annotations

import importlib.util
import mmap
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from paratrain.errors import DeviceError, MissingDependencyError
from paratrain.linktest.child import Child, ChildError, ChildTimeoutError
from paratrain.linktest.results import Limits, LinkResult, Verdict
from paratrain.linktest.runtime import DEFAULT_RUNTIME

__all__ = ["DIRECT", "STAGED", "GpuMember", "check_links"]

DIRECT, STAGED = "ipc", "host"
WORKER = "paratrain.linktest.worker"
LARGE_BYTES = 16 << 20
SMALL_BYTES = 4
LARGE_COUNT, SMALL_COUNT = 5, 50
# Direct copies are vetoed when the way through the host is faster by more than this, which repeats do not explain.
SLOWER_BY = 1.1

Edge = tuple[int, int, str]


@dataclass(frozen=True)
class GpuMember:
    """A GPU of the test under its number; two members may be the same GPU, which two processes then share."""

    number: int
    bus_id: str = ""
    index: int = 0
    """CUDA's number of the GPU, used where `bus_id` is empty."""


def check_links(
    members: Iterable[GpuMember], edges: Sequence[Edge], limits: Limits, runtime: str = DEFAULT_RUNTIME
) -> list[LinkResult]:
    """Test these (number, number, transport) links, one after another and then all at once; results in their order.

    "ipc" copies from one process's GPU straight into a block that the other process owns; "host" copies through pinned host
    memory. Where something hangs or fails, the two processes are killed and new ones go on with the other links; nothing is
    tried twice. MissingDependencyError without CuPy, DeviceError if a GPU cannot be used at all.
    """
    if runtime == DEFAULT_RUNTIME and importlib.util.find_spec("cupy") is None:
        raise MissingDependencyError("cupy", "testing the links of GPUs", "cuda13")
    used = {number for a, b, _ in edges for number in (a, b)}
    with _crew([member for member in members if member.number in used], len(edges), limits, runtime) as crew:
        results = [_find(crew, slot, edge, limits) for slot, edge in enumerate(edges)]
        good = [slot for slot, result in enumerate(results) if result.is_usable]
        if len(good) > 1:
            for slot, result in _check_at_once(crew, {slot: edges[slot] for slot in good}, limits):
                results[slot] = result
    return results


class _Crew:
    """The children, and the host memory through which pairs of them stage: two slots of a file in memory for each link."""

    def __init__(self, members: Sequence[GpuMember], link_count: int, limits: Limits, runtime: str) -> None:
        self._members = {member.number: member for member in members}
        self._limits, self._runtime = limits, runtime
        self._children: dict[int, Child] = {}
        self._stubborn: set[int] = set()
        page = mmap.ALLOCATIONGRANULARITY
        self.link_bytes = max(LARGE_BYTES, limits.byte_count)
        self.slot_bytes = -(-self.link_bytes // page) * page
        self.fd = os.memfd_create("paratrain-links")
        os.truncate(self.fd, self.slot_bytes * max(1, 2 * link_count))

    def start(self, numbers: Iterable[int]) -> None:
        """Start the children of these members that do not run. DeviceError if one cannot use its GPU."""
        new = [number for number in numbers if number not in self._children]
        for number in new:
            if number in self._stubborn:
                raise DeviceError(f"GPU {number}: a process that hung could not be killed; the GPU may need a reset")
            environment = _environment(self._members[number])
            self._children[number] = Child(WORKER, self._runtime, [self.fd], environment)
        deadline = time.monotonic() + self._limits.start_s
        for number in new:
            member = self._members[number]
            self._children[number].start("select", number, member.bus_id, member.index)
        for number in new:
            try:
                self._children[number].finish(deadline)
            except ChildTimeoutError:
                self.kill([number])
                raise DeviceError(f"GPU {number}: did not start within {self._limits.start_s:g} s") from None
            except ChildError as error:
                self.kill([number])
                raise DeviceError(f"GPU {number}: {error}") from error

    def kill(self, members: Iterable[int]) -> bool:
        """Kill the children of these members; whether all are gone."""
        numbers = set(members)
        for number in numbers:
            child = self._children.pop(number, None)
            if child is not None and not child.kill():
                self._stubborn.add(number)
        return not self._stubborn.intersection(numbers)

    def ask(self, deadline: float, commands: dict[int, tuple[Any, ...]]) -> dict[int, Any]:
        """Give each member its command, all at the same time, and return their answers."""
        for number, command in commands.items():
            self._children[number].start(*command)
        return {number: self._children[number].finish(deadline) for number in commands}

    def ask_each(
        self, deadline: float, commands: dict[int, tuple[Any, ...]]
    ) -> dict[int, ChildError | ChildTimeoutError]:
        """As `ask` without the answers; the errors by member."""
        errors: dict[int, ChildError | ChildTimeoutError] = {}
        for step in ("start", "finish"):
            for number, command in commands.items():
                if number not in errors:
                    try:
                        child = self._children[number]
                        child.start(*command) if step == "start" else child.finish(deadline)
                    except (ChildError, ChildTimeoutError) as error:
                        errors[number] = error
        return errors

    def open_link(self, slot: int, edge: Edge, deadline: float) -> None:
        """Make both ends of a link."""
        a, b, transport = edge
        self.ask(deadline, {a: ("open_link", b, self.link_bytes), b: ("open_link", a, self.link_bytes)})
        ways = 2 * slot * self.slot_bytes, (2 * slot + 1) * self.slot_bytes
        self.ask(deadline, {a: ("stage", b, self.fd, *ways), b: ("stage", a, self.fd, *reversed(ways))})
        if transport == DIRECT:
            offers = self.ask(deadline, {a: ("offer", b), b: ("offer", a)})
            self.ask(deadline, {a: ("join", b, *offers[b]), b: ("join", a, *offers[a])})

    def close_links(self, numbers: Iterable[int], deadline: float) -> None:
        """Close all links between these members: first what was opened, then what was given to others to open."""
        for command in ("leave", "free"):
            self.ask(deadline, dict.fromkeys(numbers, (command,)))

    def close(self) -> None:
        """Let the children give everything back and end; those that do not are killed."""
        deadline = time.monotonic() + self._limits.link_s
        for command in ("leave", "free"):
            lost = self.ask_each(deadline, dict.fromkeys(self._children, (command,)))
            self.kill(lost)
        for child in self._children.values():
            child.end()
        os.close(self.fd)

    def kill_all(self) -> None:
        """Kill all children, without asking them."""
        self.kill(list(self._children))
        os.close(self.fd)


def _environment(member: GpuMember) -> dict[str, str]:
    """That of the process for a member. Launchers may show each rank its own GPU alone; the test is about those of all."""
    return {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES" or not member.bus_id}


@contextmanager
def _crew(members: Sequence[GpuMember], link_count: int, limits: Limits, runtime: str) -> Iterator[_Crew]:
    crew = _Crew(members, link_count, limits, runtime)
    try:
        crew.start([member.number for member in members])
        yield crew
    except BaseException:
        crew.kill_all()
        raise
    crew.close()


def _find(crew: _Crew, slot: int, edge: Edge, limits: Limits) -> LinkResult:
    """Test one link alone, whatever happens."""
    a, b, transport = edge
    result = LinkResult(min(a, b), max(a, b), transport, Verdict.OK)
    try:
        crew.start((a, b))
        deadline = time.monotonic() + limits.link_s
        crew.open_link(slot, edge, deadline)
        wrong = _move(crew, edge, limits, deadline)
        if wrong:
            result = replace(result, verdict=Verdict.WRONG_DATA, detail=wrong)
        else:
            result = _time(crew, edge, limits, result, deadline)
        # A GPU may have 8 peers: none is kept for longer than it is needed.
        crew.close_links((a, b), deadline)
        return result
    except ChildTimeoutError:
        is_gone = crew.kill((a, b))
        detail = f"no end within {limits.link_s:g} s; " + (
            "the processes of the test were killed" if is_gone else "a process could not be killed: reset the GPUs"
        )
        return replace(result, verdict=Verdict.HANG, detail=detail)
    except (ChildError, DeviceError) as error:
        crew.kill((a, b))  # what CUDA does after an error is not told
        return replace(result, verdict=Verdict.ERROR, detail=str(error))


def _move(crew: _Crew, edge: Edge, limits: Limits, deadline: float) -> str:
    """Known bytes both ways, several times; what was wrong."""
    a, b, transport = edge
    count, wrong = limits.byte_count, ""
    for repeat in range(limits.repeat_count):
        for sender, receiver in ((a, b), (b, a)):
            crew.ask(deadline, {n: ("prepare", a + b - n, repeat, count) for n in (a, b)})
            if transport == DIRECT:
                crew.ask(deadline, {sender: ("send", [receiver], count)})
            else:
                crew.ask(deadline, {sender: ("send_staged", [receiver], count)})
                crew.ask(deadline, {receiver: ("receive_staged", [sender], count)})
            compare = ("compare", sender, repeat, count, transport == DIRECT)
            wrong = wrong or _say(crew.ask(deadline, {receiver: compare})[receiver], sender, receiver)
    return wrong


def _time(crew: _Crew, edge: Edge, limits: Limits, result: LinkResult, deadline: float) -> LinkResult:
    """Compare the direct way with the one through the host, at one size; with `limits.measure` figures of the link."""
    a, b, transport = edge

    def staged_s(byte_count: int, repeat_count: int) -> float:
        sending = crew.ask(deadline, {a: ("time_staged", b, byte_count, repeat_count, True)})[a]
        return float(sending + crew.ask(deadline, {b: ("time_staged", a, byte_count, repeat_count, False)})[b])

    def direct_s(byte_count: int, repeat_count: int) -> float:
        """The slower of the two ways: both carry the same bytes in every exchange."""
        ways = ((a, b), (b, a))
        return max(
            float(crew.ask(deadline, {one: ("time_send", other, byte_count, repeat_count)})[one]) for one, other in ways
        )

    host_s = staged_s(LARGE_BYTES, LARGE_COUNT)
    own_s = direct_s(LARGE_BYTES, LARGE_COUNT) if transport == DIRECT else host_s
    if own_s > SLOWER_BY * host_s:
        rates = [f"{LARGE_BYTES / seconds / 1e9:.3g} GB/s" for seconds in (own_s, host_s)]
        result = replace(
            result, verdict=Verdict.SLOWER, detail=f"direct copies reach {rates[0]}, through the host {rates[1]}"
        )
    if not limits.measure:
        return result
    small_s = (direct_s if transport == DIRECT else staged_s)(SMALL_BYTES, SMALL_COUNT)
    rate, host_rate = LARGE_BYTES / own_s, LARGE_BYTES / host_s
    return replace(result, bytes_per_s=rate, latency_s=small_s, host_bytes_per_s=host_rate)


def _check_at_once(crew: _Crew, edges: dict[int, Edge], limits: Limits) -> Iterator[tuple[int, LinkResult]]:
    """Use these good links, by slot, all at the same time, both ways; the slots and results of those that then fail."""
    failures = _open_all(crew, edges, limits)
    open_edges = {slot: edge for slot, edge in edges.items() if slot not in failures}
    failures |= _move_at_once(crew, open_edges, limits)
    for slot, failure in failures.items():
        a, b, transport = edges[slot]
        verdict = Verdict.WRONG_DATA
        if isinstance(failure, Exception):
            verdict = Verdict.HANG if isinstance(failure, ChildTimeoutError) else Verdict.ERROR
        yield slot, LinkResult(min(a, b), max(a, b), transport, verdict, f"with all links in use: {failure}")


def _open_all(crew: _Crew, edges: dict[int, Edge], limits: Limits) -> dict[int, str | Exception]:
    """Open and prepare all links; what failed, by slot. After a failure new processes begin again without that link."""
    failures: dict[int, str | Exception] = {}
    waiting = dict(edges)
    while waiting:
        slot, edge = waiting.popitem()
        try:
            crew.start(edge[:2])
            deadline = time.monotonic() + limits.link_s
            crew.open_link(slot, edge, deadline)
            crew.ask(
                deadline, {n: ("prepare", sum(edge[:2]) - n, limits.repeat_count, limits.byte_count) for n in edge[:2]}
            )
        except (ChildError, ChildTimeoutError, DeviceError) as error:
            crew.kill(number for other in edges.values() for number in other[:2])
            failures[slot] = error
            waiting = {slot: edge for slot, edge in edges.items() if slot not in failures}
    return failures


def _move_at_once(crew: _Crew, edges: dict[int, Edge], limits: Limits) -> dict[int, str | Exception]:
    numbers = sorted({number for a, b, _ in edges.values() for number in (a, b)})
    repeat, count = limits.repeat_count, limits.byte_count
    deadline = time.monotonic() + limits.link_s
    errors: dict[int, ChildError | ChildTimeoutError] = {}
    for command, transport in (("send", DIRECT), ("send_staged", STAGED), ("receive_staged", STAGED)):
        peers = {n: [a + b - n for a, b, t in edges.values() if t == transport and n in (a, b)] for n in numbers}
        errors |= crew.ask_each(
            deadline, {n: (command, peers[n], count) for n in numbers if peers[n] and n not in errors}
        )
    failures: dict[int, str | Exception] = {}
    for slot, (a, b, transport) in edges.items():
        for sender, receiver in ((a, b), (b, a)):
            failed = errors.get(sender, errors.get(receiver))
            if failed is None:
                compare = ("compare", sender, repeat, count, transport == DIRECT)
                try:
                    wrong = _say(crew.ask(deadline, {receiver: compare})[receiver], sender, receiver)
                except (ChildError, ChildTimeoutError) as error:
                    failed = errors[receiver] = error
                else:
                    if wrong:
                        failures.setdefault(slot, wrong)
            if failed is not None:
                failures[slot] = failed
    crew.kill(errors)
    return failures


def _say(wrong: str, sender: int, receiver: int) -> str:
    return wrong and f"from GPU {sender} to GPU {receiver}: {wrong}"
