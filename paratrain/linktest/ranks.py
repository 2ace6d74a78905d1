"""The test of the links between ranks: on every rank, with the messages and the shared memory that training uses."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from paratrain.comm.choose import uses_shared_memory
from paratrain.comm.communicator import Communicator, Request
from paratrain.comm.tree import TreeExchange
from paratrain.errors import ParatrainError
from paratrain.linktest.around import plan_around
from paratrain.linktest.pattern import CANARY, GUARD_BYTES, Bytes, difference, known_bytes
from paratrain.linktest.results import Limits, LinkResult, Verdict
from paratrain.linktest.shared import SharedLinks, check_shared, measure_shared
from paratrain.linktest.timed import LinkTimeoutError, PairCommunicator, TimedCommunicator
from paratrain.topology.tree import Tree, chain

__all__ = ["RankCheck", "check_edges", "check_tree"]

Edge = tuple[int, int]
Answer = TypeVar("Answer")

TRANSPORT = "mpi"
_MOST_PLANS = 4
_SLACK_S = 5.0  # between ranks of a busy machine
_SMALL_ELEMENTS = 1
_SMALL_COUNT = 100
_LARGE_ELEMENTS = 2 << 20  # float32: 8 MiB
_LARGE_COUNT = 7
# Where the two ends of a link do not find the same, the cause counts before what follows from it.
_GRAVITY = (Verdict.OK, Verdict.SLOWER, Verdict.WRONG_DATA, Verdict.HANG, Verdict.ERROR)


@dataclass(frozen=True)
class RankCheck:
    """All links that were tested, in the order of the tests, and the tree that is left: it avoids the bad ones.

    `tree` is None where no tree without a bad link was found.
    """

    results: tuple[LinkResult, ...]
    tree: Tree | None
    planned: Tree
    """The tree before anything was tested."""
    problem: str = ""
    """Why ranks of a node, which would train through shared memory, have none: then they use messages."""

    @property
    def bad(self) -> list[LinkResult]:
        """The links that should not be used."""
        return [result for result in self.results if not result.is_usable]


def check_tree(
    control: Communicator, transport: Communicator, tree: Tree, limits: Limits, exchange: str = "tree"
) -> RankCheck:
    """Test every link of the tree; plan around those that are bad and test the new ones, a few times. All ranks call it.

    The messages of `transport` are tested, and shared memory between ranks that would train with `exchange` through it.
    `control` joins the same ranks and carries what they have to agree on: a second communicator, whose messages a lost one
    cannot put out of order. Every rank gets the same answer. LinkTimeoutError if the ranks cannot agree, since these
    messages do not arrive either: then they should be ended.
    """
    planned, results, bad, problem = tree, list[LinkResult](), set[Edge](), ""
    for _ in range(_MOST_PLANS):
        known = {result.pair for result in results}
        edges = [edge for edge in tree.edges() if _pair(edge) not in known]
        shared = None
        if uses_shared_memory(exchange, control) and not problem:
            made = _share(TimedCommunicator(control), edges, limits)
            shared, problem = (None, made) if isinstance(made, str) else (made, "")
        found = check_edges(control, transport, edges, limits, shared)
        results += found
        bad |= {result.pair for result in found if not result.is_usable}
        if not bad.intersection(map(_pair, tree.edges())):
            return RankCheck(tuple(results), tree, planned, problem)
        other = plan_around(tree, control.node_of_rank, bad)
        if other is None:
            break
        tree = other
    return RankCheck(tuple(results), None, planned, problem)


def check_edges(
    control: Communicator,
    transport: Communicator,
    edges: Sequence[Edge],
    limits: Limits,
    shared: SharedLinks | None = None,
) -> list[LinkResult]:
    """Test these (parent, child) links, each alone and then all at once; results in their order. All ranks call it.

    Links in `shared` whose messages are good are then tested through that memory in the same way. Links without a common
    rank are tested at the same time, but measured one by one. Errors as of `check_tree`.
    """
    timed, control = TimedCommunicator(transport), TimedCommunicator(control)
    results: dict[Edge, LinkResult] = {}

    def good(among: Container[Edge] = edges) -> list[Edge]:
        return [edge for edge in edges if results[edge].is_usable and edge in among]

    def run(groups: Sequence[Sequence[Edge]], test: Callable[[Sequence[Edge]], dict[Edge, LinkResult]]) -> None:
        found: dict[Edge, LinkResult] = {}
        for group in groups:
            _meet(control, limits, found)
            found.update(test([edge for edge in group if control.rank in edge]))
        _meet(control, limits, found)
        tested = [edge for group in groups for edge in group]
        results.update(_merge(control, tested, found))

    def transport_of(edge: Edge) -> str:
        return results[edge].transport if edge in results else TRANSPORT

    def each(check: Callable[[Edge], LinkResult]) -> Callable[[Sequence[Edge]], dict[Edge, LinkResult]]:
        return lambda own: {edge: _find(edge, partial(check, edge), transport_of(edge)) for edge in own}

    run(_rounds(edges), each(lambda edge: _check_edge(timed, edge, limits)))
    if len(good()) > 1:
        run([good()], lambda own: _check_at_once(timed, own, limits))
    if shared is not None:
        alone, at_once = range(limits.repeat_count), [limits.repeat_count]
        run(_rounds(good(shared)), lambda own: check_shared(timed, shared, own, alone, limits))
        if len(good(shared)) > 1:
            run([good(shared)], lambda own: _say_at_once(check_shared(timed, shared, own, at_once, limits)))
    if limits.measure:
        run([[edge] for edge in good()], each(lambda edge: _measure(timed, edge, limits, results[edge], shared)))
    return [results[edge] for edge in edges]


def _share(control: TimedCommunicator, edges: Sequence[Edge], limits: Limits) -> SharedLinks | str | None:
    """Memory for those of the links that are within a node; None if there are none of them."""
    nodes = control.node_of_rank
    inner = [edge for edge in edges if nodes[edge[0]] == nodes[edge[1]]]
    return _agree(control, limits, {}, lambda: SharedLinks.make(control, inner, limits)) if inner else None


def _meet(control: TimedCommunicator, limits: Limits, found: Mapping[Edge, LinkResult]) -> None:
    """Wait for all ranks, for as long as a test may take them. LinkTimeoutError, which says what this rank has `found`."""
    _agree(control, limits, found, control.barrier)


def _agree(
    control: TimedCommunicator, limits: Limits, found: Mapping[Edge, LinkResult], action: Callable[[], Answer]
) -> Answer:
    control.start_clock(limits.link_s * (4 if limits.measure else 2) + _SLACK_S)
    try:
        return action()
    except LinkTimeoutError as error:
        bad = [f"rank {one.a} and rank {one.b}: {one.verdict.value}" for one in found.values() if not one.is_usable]
        before = f"; this rank has found before: {'; '.join(bad)}" if bad else ""
        raise LinkTimeoutError(f"testing the links, the ranks lost each other: {error}{before}") from error


def _find(edge: Edge, check: Callable[[], LinkResult], transport: str = TRANSPORT) -> LinkResult:
    """What `check` finds, or the verdict that its exception means."""
    a, b = _pair(edge)
    try:
        return check()
    except LinkTimeoutError as error:
        return LinkResult(a, b, transport, Verdict.HANG, str(error))
    except (ParatrainError, OSError) as error:
        return LinkResult(a, b, transport, Verdict.ERROR, str(error))


def _check_edge(timed: TimedCommunicator, edge: Edge, limits: Limits) -> LinkResult:
    """Both ways over one link by messages, as a tree of two."""
    parent, child = edge
    is_parent = timed.rank == parent
    timed.start_clock(limits.link_s)
    exchange = TreeExchange(PairCommunicator(timed, parent, child), chain(2))
    wrong = ""
    for repeat in range(limits.repeat_count):
        down = known_bytes(parent, child, repeat, limits.byte_count)
        arrived = _canaries(limits.byte_count)
        exchange.broadcast(down if is_parent else arrived[: limits.byte_count])
        if not is_parent:
            wrong = wrong or _say(difference(arrived, down), parent, child)
        up = known_bytes(child, parent, repeat, limits.byte_count)
        arrived = _canaries(limits.byte_count)
        exchange.reduce(arrived[: limits.byte_count] if is_parent else up)
        if is_parent:
            arrived[: limits.byte_count] -= CANARY  # what was there before is part of the sum
            wrong = wrong or _say(difference(arrived, up), child, parent)
    a, b = _pair(edge)
    if wrong:
        return LinkResult(a, b, TRANSPORT, Verdict.WRONG_DATA, wrong)
    return LinkResult(a, b, TRANSPORT, Verdict.OK)


def _measure(
    timed: TimedCommunicator, edge: Edge, limits: Limits, result: LinkResult, shared: SharedLinks | None
) -> LinkResult:
    """Medians of messages that go to and fro: half of the way there and back for a small one, and the rate of large ones.

    Through shared memory as `measure_shared` does. The parent's figures count.
    """
    if shared is not None and edge in shared:
        latency_s, byte_s = measure_shared(timed, shared, edge, limits)
        return replace(result, latency_s=latency_s, bytes_per_s=1 / byte_s if byte_s else None)
    small_s = _round_trip(timed, edge, limits, _SMALL_ELEMENTS, _SMALL_COUNT)
    large_s = _round_trip(timed, edge, limits, _LARGE_ELEMENTS, _LARGE_COUNT)
    return replace(result, latency_s=small_s / 2, bytes_per_s=2 * 4 * _LARGE_ELEMENTS / large_s)


def _round_trip(timed: TimedCommunicator, edge: Edge, limits: Limits, element_count: int, repeat_count: int) -> float:
    timed.start_clock(limits.link_s)
    other = edge[1] if timed.rank == edge[0] else edge[0]
    array = np.zeros(element_count, np.float32)
    times = []
    for _ in range(repeat_count + 1):
        begin = time.perf_counter()
        if timed.rank == edge[0]:
            timed.send(array, other)
            timed.receive(array, other)
        else:
            timed.receive(array, other)
            timed.send(array, other)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])  # the first one warms up


def _check_at_once(timed: TimedCommunicator, edges: Sequence[Edge], limits: Limits) -> dict[Edge, LinkResult]:
    """All of this rank's links both ways at the same time, by messages."""
    timed.start_clock(limits.link_s)
    repeat = limits.repeat_count
    waiting: dict[Edge, tuple[list[Request], Bytes, Bytes]] = {}
    found: dict[Edge, LinkResult] = {}

    def start(edge: Edge, other: int) -> LinkResult:
        arrived = _canaries(limits.byte_count)
        message = known_bytes(timed.rank, other, repeat, limits.byte_count)
        receive = timed.ireceive(arrived[: limits.byte_count], other)
        waiting[edge] = [timed.isend(message, other), receive], message, arrived
        return LinkResult(*_pair(edge), TRANSPORT, Verdict.OK)

    def finish(edge: Edge, other: int) -> LinkResult:
        requests, _, arrived = waiting[edge]
        for request in requests:
            request.wait()
        expected = known_bytes(other, timed.rank, repeat, limits.byte_count)
        wrong = _say(difference(arrived, expected), other, timed.rank)
        verdict = Verdict.WRONG_DATA if wrong else Verdict.OK
        return LinkResult(*_pair(edge), TRANSPORT, verdict, wrong)

    for step in (start, finish):
        for edge in edges:
            if edge not in found or found[edge].is_usable:
                other = edge[1] if timed.rank == edge[0] else edge[0]
                found[edge] = _find(edge, partial(step, edge, other))
    return _say_at_once(found)


def _say_at_once(found: dict[Edge, LinkResult]) -> dict[Edge, LinkResult]:
    return {
        edge: replace(one, detail=f"with all links in use: {one.detail}") if one.verdict is Verdict.WRONG_DATA else one
        for edge, one in found.items()
    }


def _merge(control: Communicator, edges: Sequence[Edge], found: dict[Edge, LinkResult]) -> dict[Edge, LinkResult]:
    """Both ends' findings as one result for each link, the graver verdict of two."""
    of_ranks = control.allgather_objects(found)
    merged = {}
    for edge in edges:
        ends = [of_ranks[rank][edge] for rank in edge]  # the parent's first: it has measured
        merged[edge] = max(ends, key=lambda result: _GRAVITY.index(result.verdict))
    return merged


def _rounds(edges: Sequence[Edge]) -> list[list[Edge]]:
    """The links in groups, in which no rank appears twice."""
    rounds: list[list[Edge]] = []
    for edge in edges:
        free = (group for group in rounds if not any(set(edge) & set(other) for other in group))
        group = next(free, None)
        if group is None:
            rounds.append([edge])
        else:
            group.append(edge)
    return rounds


def _pair(edge: Edge) -> Edge:
    return min(edge), max(edge)


def _canaries(byte_count: int) -> Bytes:
    return np.full(byte_count + GUARD_BYTES, CANARY, np.uint8)


def _say(wrong: str, sender: int, receiver: int) -> str:
    return wrong and f"from rank {sender} to rank {receiver}: {wrong}"
