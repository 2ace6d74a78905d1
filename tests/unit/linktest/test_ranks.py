"""The test of links between ranks, with ranks as threads and faults on one link."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from paratrain.comm.communicator import Array, Communicator
from paratrain.comm.threads import ThreadCommunicator, _Group, run_threads
from paratrain.linktest import ranks, shared
from paratrain.linktest.ranks import RankCheck, check_tree
from paratrain.linktest.results import Limits, Verdict
from paratrain.linktest.shared import SharedLinks
from paratrain.linktest.timed import LinkTimeoutError
from paratrain.topology.planner import binomial
from paratrain.topology.tree import Tree, chain, star
from tests.unit.linktest.link_faults import FaultyCommunicator, faulty_announce

LIMIT_S = 1.0
QUICK = Limits(link_s=LIMIT_S, byte_count=300_001)
MESSAGES = 2 * 2 * 3  # that a rank sends over a link before all links are used at once, in chunks of 256 KiB


def check(
    tree: Tree,
    fault: str = "",
    pair: tuple[int, int] = (0, 1),
    first: int = 0,
    limits: Limits = QUICK,
    nodes: Sequence[int] | None = None,
    exchange: str = "tree",
) -> RankCheck:
    """What all ranks find, which is the same; the fault is in the messages between `pair`, from the message `first` on."""
    group = _Group(tree.size)

    def rank(control: Communicator) -> RankCheck:
        transport: Communicator = ThreadCommunicator(group, control.rank, control.node_of_rank)
        if fault:
            transport = FaultyCommunicator(transport, pair, fault, first, late_s=3 * LIMIT_S)
        return check_tree(control, transport, tree, limits, exchange)

    found = run_threads(tree.size, rank, nodes)
    assert all(one == found[0] for one in found)
    return found[0]


def verdicts(found: RankCheck) -> dict[tuple[int, int], Verdict]:
    return {result.pair: result.verdict for result in found.results}


@pytest.mark.parametrize("tree", [chain(1), chain(2), binomial(4), star(5), chain(6), binomial(7, root=3)])
def test_good_links_are_ok_and_the_tree_stays(tree: Tree) -> None:
    found = check(tree)
    assert verdicts(found) == {(min(edge), max(edge)): Verdict.OK for edge in tree.edges()}
    assert found.tree == found.planned == tree
    assert found.bad == []


@pytest.mark.parametrize(
    ("fault", "verdict", "said"),
    [
        (
            "corrupt",
            Verdict.WRONG_DATA,
            r"from rank \d to rank \d: \d+ of 300001 bytes are wrong, the first at \d+: expected 0x",
        ),
        ("misdeliver", Verdict.WRONG_DATA, "bytes are wrong"),
        ("drop", Verdict.HANG, r"nothing came to rank \d from rank \d within 1 s"),
        ("late", Verdict.HANG, r"rank \d could not send to rank \d within 1 s|nothing came"),
        ("raise", Verdict.ERROR, "the cable was cut"),
    ],
)
@pytest.mark.parametrize("pair", [(0, 1), (2, 3)])
def test_a_bad_link_is_named_and_planned_around(fault: str, verdict: Verdict, said: str, pair: tuple[int, int]) -> None:
    tree = binomial(4)  # 0-1, 0-2, 2-3
    found = check(tree, fault, pair)
    expected = {(0, 1): Verdict.OK, (0, 2): Verdict.OK, (2, 3): Verdict.OK, pair: verdict}
    detour = {(0, 1): (1, 2), (2, 3): (0, 3)}[pair]
    assert verdicts(found) == {**expected, detour: Verdict.OK}
    (bad,) = found.bad
    assert re.search(said, bad.detail), bad.detail
    assert found.planned == tree
    assert found.tree is not None
    assert pair not in {(min(edge), max(edge)) for edge in found.tree.edges()}


def test_a_slow_link_that_works_is_ok() -> None:
    assert set(verdicts(check(binomial(3), "slow")).values()) == {Verdict.OK}


def test_a_fault_that_shows_only_with_all_links_in_use() -> None:
    found = check(binomial(4), "corrupt", (0, 2), first=MESSAGES // 2)
    (bad,) = found.bad
    assert bad.pair == (0, 2)
    assert bad.detail.startswith("with all links in use: from rank ")


def test_two_ranks_with_a_bad_link_have_no_other_tree() -> None:
    found = check(chain(2), "corrupt")
    assert found.tree is None
    assert found.bad[0].verdict is Verdict.WRONG_DATA


def test_ranks_that_lose_each_other_say_so_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the messages by which ranks agree do not arrive either, nobody waits for ever."""
    monkeypatch.setattr(ranks, "_SLACK_S", 0.5)
    group = _Group(3)

    def rank(control: Communicator) -> str:
        transport = ThreadCommunicator(group, control.rank, control.node_of_rank)
        with pytest.raises(LinkTimeoutError) as caught:
            check_tree(
                FaultyCommunicator(control, (0, 2), "drop", first=12),
                FaultyCommunicator(transport, (0, 2), "drop"),
                star(3),
                QUICK,
            )
        return str(caught.value)

    said = run_threads(3, rank)
    assert all("testing the links, the ranks lost each other: nothing came to rank" in text for text in said)
    assert any(text.endswith("; this rank has found before: rank 0 and rank 2: hang") for text in said)


def test_measuring_gives_rates_and_times() -> None:
    found = check(binomial(3), limits=Limits(link_s=20, measure=True))
    for result in found.results:
        assert result.bytes_per_s is not None
        assert result.latency_s is not None
        assert 1e6 < result.bytes_per_s < 1e12
        assert 1e-8 < result.latency_s < 1


def transports(found: RankCheck) -> dict[tuple[int, int], str]:
    return {result.pair: result.transport for result in found.results}


@pytest.mark.parametrize(
    ("exchange", "nodes", "expected"),
    [
        ("tree", [0, 0, 0, 0], ["shared", "shared", "shared"]),
        ("sharded", [0, 0, 0, 0], ["shared", "shared", "shared"]),
        ("ring", [0, 0, 0, 0], ["mpi", "mpi", "mpi"]),
        ("tree", [0, 0, 1, 1], ["shared", "mpi", "shared"]),
        ("sharded", [0, 0, 1, 1], ["shared", "mpi", "shared"]),
        ("ring", [0, 0, 1, 1], ["shared", "mpi", "shared"]),
        ("sharded", [0, 1, 2, 3], ["mpi", "mpi", "mpi"]),
    ],
)
@pytest.mark.parametrize("measure", [False, True])
def test_links_are_tested_by_the_way_that_training_takes(
    exchange: str, nodes: list[int], expected: list[str], measure: bool
) -> None:
    limits = Limits(link_s=20, byte_count=100_001, measure=measure)
    found = check(binomial(4), limits=limits, nodes=nodes, exchange=exchange)
    assert transports(found) == dict(zip([(0, 1), (0, 2), (2, 3)], expected, strict=True))
    assert {result.verdict for result in found.results} == {Verdict.OK}
    assert {result.bytes_per_s is not None for result in found.results} == {measure}
    assert found.problem == ""


@pytest.mark.parametrize(
    ("fault", "verdict", "said"),
    [
        (
            "shared-corrupt",
            Verdict.WRONG_DATA,
            r"^from rank \d to rank \d: 1 of 300001 bytes are wrong, the first at 1000: .* found 0xa5; they never arrived",
        ),
        ("shared-drop", Verdict.HANG, r"rank \d did not raise its flag in the memory shared with rank \d within 1 s"),
        ("shared-raise", Verdict.ERROR, "the memory was taken away"),
    ],
)
@pytest.mark.parametrize("pair", [(0, 1), (2, 3)])
def test_bad_shared_memory_is_named_and_planned_around(
    fault: str, verdict: Verdict, said: str, pair: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SharedLinks, "announce", faulty_announce(pair, fault))
    found = check(binomial(4))
    (bad,) = found.bad
    assert (bad.pair, bad.transport, bad.verdict) == (pair, "shared", verdict)
    assert re.search(said, bad.detail), bad.detail
    assert found.tree is not None
    assert pair not in {(min(edge), max(edge)) for edge in found.tree.edges()}


@pytest.mark.parametrize("fault", ["shared-corrupt", "shared-drop"])
def test_a_fault_of_shared_memory_with_all_links_in_use(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedLinks, "announce", faulty_announce((0, 2), fault, first=3 * 4 * 3))
    (bad,) = check(binomial(4)).bad
    assert bad.pair == (0, 2)  # the other links of its ranks do not suffer
    assert bad.detail.startswith("with all links in use: from rank " if fault == "shared-corrupt" else "rank ")


def test_memory_that_is_not_shared_after_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of which a rank has a copy of its own, as a broken mapping would give."""

    def copied(self: SharedLinks, owner: int, edge: tuple[int, int]) -> Array:
        place = piece(self, owner, edge)
        return place if owner == self.rank else place.copy()

    piece = SharedLinks.piece
    monkeypatch.setattr(SharedLinks, "piece", copied)
    (bad,) = check(chain(2)).bad
    assert bad.verdict is Verdict.WRONG_DATA
    assert "300001 of 300001 bytes are wrong" in bad.detail or "300001 bytes" in bad.detail


def test_without_shared_memory_messages_are_tested_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "share", lambda *_: "rank 1: 5 bytes of shared memory cannot be had: no space")
    found = check(binomial(4))
    assert set(transports(found).values()) == {"mpi"}
    assert found.bad == []
    assert found.problem.startswith("rank 1: 5 bytes of shared memory")


def test_a_rank_that_never_shares_its_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "_SLACK_S", 0.5)
    group = _Group(3)

    def rank(control: Communicator) -> str:
        transport = ThreadCommunicator(group, control.rank, control.node_of_rank)
        with pytest.raises(LinkTimeoutError) as caught:
            check_tree(FaultyCommunicator(control, (0, 2), "drop"), transport, star(3), QUICK)
        return str(caught.value)

    assert all("the ranks lost each other: nothing came to rank" in text for text in run_threads(3, rank))
