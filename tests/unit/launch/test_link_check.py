"""Links tested for a plan and before training: on a fake machine with GPUs, and on ranks."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from paratrain.comm import LocalCommunicator
from paratrain.comm.communicator import Communicator
from paratrain.comm.threads import ThreadCommunicator, _Group, run_threads
from paratrain.errors import CommunicationError, DeviceError
from paratrain.launch import device, link_check
from paratrain.launch.cli import main
from paratrain.launch.rank_tree import RankTree
from paratrain.linktest import shared
from paratrain.linktest.gpus import DIRECT, STAGED, Edge, GpuMember
from paratrain.linktest.results import Limits, LinkResult, Verdict
from paratrain.topology.machine import Gpu, Link, LinkClass, Machine
from paratrain.topology.planner import binomial
from paratrain.topology.tree import chain
from tests.unit.linktest.link_faults import FaultyCommunicator

GPUS = tuple(Gpu(n, name="A", bus_id=f"00000000:0{n + 1}:00.0", uuid=f"GPU-{n}") for n in range(4))
NEAR, FAR = LinkClass.parse("PIX"), LinkClass.parse("SYS")
LINKS = tuple(
    Link(a, b, NEAR if a // 2 == b // 2 else FAR, p2p_read="OK", p2p_write="OK") for b in range(4) for a in range(b)
)
MACHINE = Machine(GPUS, LINKS, source="a test", driver_version="580.1")


class Hardware:
    """In place of `check_links`: links of which some are bad, and a record of what was tested, run by run."""

    def __init__(self) -> None:
        self.bad: dict[tuple[int, int, str], Verdict] = {}
        self.runs: list[list[Edge]] = []
        self.members: list[GpuMember] = []

    def check_links(
        self, members: Sequence[GpuMember], edges: Sequence[Edge], limits: Limits, runtime: str
    ) -> list[LinkResult]:
        self.members = list(members)
        self.runs.append(list(edges))
        results = []
        for one, other, transport in edges:
            a, b = sorted((one, other))
            verdict = self.bad.get((a, b, transport), Verdict.OK)
            rates = (3e9, 2e-5, 3e9) if limits.measure else (None, None, None)
            results.append(LinkResult(a, b, transport, verdict, "bad" if verdict is not Verdict.OK else "", *rates))
        return results


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hardware:
    """A machine of four GPUs on which the command line runs; the cache is empty."""
    fake = Hardware()
    monkeypatch.setattr(link_check, "check_links", fake.check_links)
    monkeypatch.setattr("paratrain.topology.sources.find.find_machine", lambda: MACHINE)
    monkeypatch.setattr(device, "find_machine", lambda: MACHINE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "PMIX_RANK"):
        monkeypatch.delenv(name, raising=False)
    return fake


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert main(["topology", "--json", *arguments]) == 0
    values: dict[str, object] = json.loads(capsys.readouterr().out)
    return values


def links(values: dict[str, object]) -> dict[tuple[int, int], dict[str, object]]:
    found = values["links"]
    assert isinstance(found, list)
    return {(link["a"], link["b"]): link for link in found}


def transports(values: dict[str, object]) -> dict[tuple[int, int], str]:
    tree = values["tree"]
    assert isinstance(tree, dict)
    return {tuple(sorted((edge["parent"], edge["child"]))): edge["transport"] for edge in tree["edges"]}


def test_a_plain_look_tests_nothing(hardware: Hardware, capsys: pytest.CaptureFixture[str]) -> None:
    values = answer(capsys)
    assert hardware.runs == []
    assert "tests" not in values
    assert {link["verified"] for link in links(values).values()} == {None}


def test_a_bad_link_is_shown_and_remembered_until_the_next_check(
    hardware: Hardware, capsys: pytest.CaptureFixture[str]
) -> None:
    hardware.bad[0, 1, DIRECT] = Verdict.WRONG_DATA
    checked = answer(capsys, "--check")
    assert links(checked)[0, 1]["verified"] == "wrong data"
    assert links(checked)[0, 1]["veto"] == "in a test, a direct copy moved wrong data"
    assert transports(checked).get((0, 1)) != DIRECT
    assert [warning["code"] for warning in checked["warnings"]] == ["T03"]  # type: ignore[attr-defined]
    tests = checked["tests"]
    assert isinstance(tests, list)
    assert [(test["a"], test["b"], test["transport"]) for test in tests if test["verified"] != "ok"] == [(0, 1, DIRECT)]
    assert [member.bus_id for member in hardware.members] == [gpu.bus_id for gpu in GPUS]
    count = len(hardware.runs)

    later = answer(capsys)
    assert len(hardware.runs) == count
    assert transports(later) == transports(checked)
    assert links(later) == links(checked)

    hardware.bad.clear()
    mended = answer(capsys, "--check")
    assert len(hardware.runs) > count
    assert links(mended)[0, 1]["verified"] == "ok"
    assert transports(mended)[0, 1] == DIRECT
    assert transports(answer(capsys)) == transports(mended)


def test_the_table_and_what_was_measured(hardware: Hardware, capsys: pytest.CaptureFixture[str]) -> None:
    hardware.bad[2, 3, DIRECT] = Verdict.SLOWER
    assert main(["topology", "--measure"]) == 0
    text = capsys.readouterr().out
    assert "P2P: driver: yes, tested: slower than host -> host: 2-3" in text
    assert "both ways, 3 times, then all at once):" in text
    assert "GPU2-GPU3 CUDA IPC slower than host 3.0 GB/s 20.0 us" in [
        " ".join(line.split()) for line in text.splitlines()
    ]
    assert "measured" in text
    assert "warning T05: GPU2-GPU3: a direct copy is slower than the way through the host (bad)" in text
    assert main(["topology", "--strict"]) == 3


@pytest.mark.parametrize("other", [["--machine", "dgx2"], ["--from", "topo.txt"], ["--nodes", "2"]])
def test_only_this_machine_is_tested(
    hardware: Hardware, capsys: pytest.CaptureFixture[str], tmp_path: Path, other: list[str], repository: Path
) -> None:
    if other[0] == "--from":
        other = ["--from", str(sorted((repository / "tests/data/topology").glob("2gpu*.txt"))[0])]
    assert main(["topology", "--check", *other]) == 2
    assert "--check tests this machine: leave out --from, --machine and --nodes" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1", "soon", "inf", "nan"])
def test_a_time_limit_is_a_time(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topology", "--check", f"--timeout={text}"]) == 2
    assert f"'{text}' is no time; expected seconds, as in 10 or 2.5" in capsys.readouterr().err


def test_one_rank_has_no_link(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topology", "--check", "--ranks", "1"]) == 0
    assert "Tested no link: there is only one rank" in capsys.readouterr().out


def test_before_training_only_what_nobody_has_tested_is_tested(
    hardware: Hardware, caplog: pytest.LogCaptureFixture
) -> None:
    hardware.bad[0, 1, DIRECT] = Verdict.HANG
    machine = device.find_machine()
    assert machine.indices == (0, 1, 2, 3)
    plan = link_check.check_before_training(LocalCommunicator(), machine, 1_000_000)
    assert plan is not None
    ways = {(min(e.parent, e.child), max(e.parent, e.child)): e.transport for e in plan.edges}
    assert ways.get((0, 1)) != DIRECT
    assert "T04: GPU0-GPU1: a direct copy hung (bad); planned through the host's memory" in caplog.text
    # What hangs is not tried again, in no later run.
    count = len(hardware.runs)
    assert link_check.check_before_training(LocalCommunicator(), machine, 1_000_000) == plan
    assert len(hardware.runs) == count
    assert all((0, 1, DIRECT) in run or (1, 0, DIRECT) in run or (0, 1, STAGED) in run for run in hardware.runs[:1])


def test_links_that_cannot_be_tested_are_used(
    hardware: Hardware, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hardware.bad[0, 1, DIRECT] = Verdict.WRONG_DATA
    known = link_check.check_before_training(LocalCommunicator(), MACHINE, 1000)

    def refuse(*_: object) -> list[LinkResult]:
        raise DeviceError("GPU 0: cudaErrorDevicesUnavailable")

    monkeypatch.setattr(link_check, "check_links", refuse)
    assert link_check.check_before_training(LocalCommunicator(), MACHINE, 1000) == known  # nothing was left to test
    other = replace(MACHINE, driver_version="580.2")
    plan = link_check.check_before_training(LocalCommunicator(), other, 1000)
    assert plan is not None and not plan.machine.vetoes
    assert "used without having been tested: GPU 0: cudaErrorDevicesUnavailable" in caplog.text


def test_before_training_the_lowest_rank_of_a_node_tests(hardware: Hardware) -> None:
    plans = run_threads(
        4, lambda ranks: link_check.check_before_training(ranks, MACHINE, 1000) is not None, node_of_rank=[0, 0, 1, 1]
    )
    assert plans == [True, False, True, False]


def test_one_gpu_or_the_cpu_needs_no_test(hardware: Hardware) -> None:
    for machine in (MACHINE.select([2]), Machine()):
        assert link_check.check_before_training(LocalCommunicator(), machine, 1000) is None
    assert hardware.runs == []


def checked(size: int, fault: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> list[RankTree]:
    group = _Group(size)
    tree = binomial(size)

    def rank(ranks: Communicator) -> RankTree:
        mine = ThreadCommunicator(group, ranks.rank, ranks.node_of_rank)
        transport = FaultyCommunicator(mine, (0, 1), fault) if fault else mine
        transports[ranks.rank] = transport
        return link_check.checked_tree(ranks, RankTree(tree, "as planned"), Limits(link_s=1.0))

    import threading

    transports: dict[int, Communicator] = {}
    monkeypatch.setattr(
        link_check, "create_communicator", lambda: transports[int(threading.current_thread().name.split()[1])]
    )
    with caplog.at_level(logging.INFO):
        return run_threads(size, rank)


def test_training_goes_around_a_bad_link_between_ranks(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = checked(4, "corrupt", caplog, monkeypatch)
    assert len(set(found)) == 1
    assert found[0].description == "rank 0 adds 2; rank 2 adds 3, 1 (around bad links)"
    assert "T03: rank 0 and rank 1: a message moved wrong data (from rank " in caplog.text
    assert "Links: tested 4, 1 bad" in caplog.text


def test_training_is_told_when_only_messages_were_tested(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "share", lambda *_: "rank 1: no memory")
    assert {tree.description for tree in checked(3, "", caplog, monkeypatch)} == {"as planned"}
    assert "T12: rank 1: no memory; the ranks of a node train by messages, and only these were tested" in caplog.text


def test_training_keeps_its_tree_where_links_are_good(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {tree.description for tree in checked(4, "", caplog, monkeypatch)} == {"as planned"}
    assert "Links: tested 3, 0 bad" in caplog.text


def test_training_does_not_begin_without_a_good_tree(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CommunicationError, match=r"testing the links: rank 0 and rank 1: .* no tree of the ranks does"):
        checked(2, "drop", caplog, monkeypatch)


def test_one_rank_is_not_tested() -> None:
    planned = RankTree(chain(1), "alone")
    assert link_check.checked_tree(LocalCommunicator(), planned) is planned
