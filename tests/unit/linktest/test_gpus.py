"""The test of links between GPUs, with real child processes, whose GPUs are files."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from paratrain.errors import DeviceError, MissingDependencyError
from paratrain.linktest import gpus
from paratrain.linktest.gpus import DIRECT, STAGED, GpuMember, check_links
from paratrain.linktest.results import Limits, LinkResult, Verdict
from tests.paths import REPOSITORY
from tests.unit.linktest.fake_gpus import RUNTIME, SLOW_S

LIMIT_S = 3.0
LARGE_BYTES = 5 << 20
TREE = [(0, 1, DIRECT), (0, 2, DIRECT), (2, 3, DIRECT)]

Check = Callable[..., list[LinkResult]]


def shared_memory() -> set[str]:
    """The names in /dev/shm that Python or paratrain could have made; others, such as MPI's, come and go."""
    return {name for name in os.listdir("/dev/shm") if name.startswith(("psm_", "paratrain"))}


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Check]:
    """check(faults, edges): the results; afterwards no process, no file of a GPU and nothing in /dev/shm is left."""
    monkeypatch.setenv("FAKE_GPUS", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setattr(gpus, "LARGE_BYTES", LARGE_BYTES)
    monkeypatch.setattr(gpus, "LARGE_COUNT", 2)
    shared = shared_memory()

    def check(
        faults: dict[str, str], edges: list[tuple[int, int, str]], limits: Limits | None = None
    ) -> list[LinkResult]:
        (tmp_path / "faults.json").write_text(json.dumps(faults))
        members = [GpuMember(number, bus_id=str(number)) for number in range(4)]
        return check_links(members, edges, limits or Limits(link_s=LIMIT_S), RUNTIME)

    yield check
    assert psutil.Process().children(recursive=True) == []
    assert shared_memory() <= shared


def test_good_links_are_ok(check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")  # as launchers set it, for a rank that tests the links of all
    results = check({}, [*TREE, (1, 3, STAGED)])
    assert results == [
        LinkResult(0, 1, DIRECT, Verdict.OK),
        LinkResult(0, 2, DIRECT, Verdict.OK),
        LinkResult(2, 3, DIRECT, Verdict.OK),
        LinkResult(1, 3, STAGED, Verdict.OK),
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["faults.json"]  # every block was given back


@pytest.mark.parametrize(
    ("fault", "verdict", "said"),
    [
        ("corrupt", Verdict.WRONG_DATA, "from GPU 2 to GPU 0: 1 of 1048613 bytes are wrong, the first at 1048612"),
        ("lose", Verdict.WRONG_DATA, "they never arrived"),
        ("overrun", Verdict.WRONG_DATA, "from GPU 2 to GPU 0: 1 bytes behind the message were overwritten"),
        ("hang", Verdict.HANG, "no end within 3 s; the processes of the test were killed"),
        ("raise", Verdict.ERROR, "FakeError: cudaErrorIllegalAddress"),
        ("refuse", Verdict.ERROR, "FakeError: cudaErrorPeerAccessUnsupported"),
        ("die", Verdict.ERROR, "the process of the test was ended by SIGABRT"),
        ("slow", Verdict.SLOWER, "direct copies reach 0."),
    ],
)
def test_a_bad_link_has_its_verdict_and_the_others_are_tested(
    check: Check, fault: str, verdict: Verdict, said: str
) -> None:
    # That the system pins no memory is not the links' fault.
    first, second, third = check({"2-0": fault, "pin": "raise"}, TREE)
    assert (second.pair, second.verdict) == ((0, 2), verdict)
    assert said in second.detail
    assert first == LinkResult(0, 1, DIRECT, Verdict.OK)
    assert third == LinkResult(2, 3, DIRECT, Verdict.OK)


def test_a_hang_ends_in_time_with_all_that_it_has_started(check: Check) -> None:
    begin = time.monotonic()
    (result,) = check({"0-1": "hang"}, [(0, 1, DIRECT)], Limits(link_s=1.0))
    assert result.verdict is Verdict.HANG
    assert time.monotonic() - begin < 20  # one second, and what starting two processes takes on a busy machine


def test_children_do_not_outlive_a_parent_that_is_killed(check: Check, tmp_path: Path) -> None:
    (tmp_path / "faults.json").write_text('{"0-1": "hang"}')
    code = (
        "from paratrain.linktest.gpus import *; from paratrain.linktest.results import Limits\n"
        f"check_links([GpuMember(0), GpuMember(1, index=1)], [(0, 1, DIRECT)], Limits(link_s=60), {RUNTIME!r})"
    )
    parent = psutil.Popen([sys.executable, "-c", code])
    try:
        wait_for(lambda: len(parent.children(recursive=True)) == 3)  # two workers and what one has started
        workers = [child for child in parent.children() if child.is_running()]
        rest = [child for child in parent.children(recursive=True) if child not in workers]
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not any(is_alive(worker) for worker in workers))
    for child in rest:  # which the fake has started, and which is not the test's
        child.kill()


def wait_for(condition: Callable[[], bool], limit_s: float = 30.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_link_that_fails_when_others_are_in_use(check: Check) -> None:
    results = check({"0-2": "crowded"}, TREE)
    assert [result.verdict for result in results] == [Verdict.OK, Verdict.WRONG_DATA, Verdict.OK]
    assert results[1].detail.startswith("with all links in use: from GPU 0 to GPU 2: 1 of 1048613 bytes are wrong")


def test_links_are_closed_as_soon_as_they_are_tested(check: Check) -> None:
    """A GPU has few peers at a time: more links than that can be tested, but not be in use together."""
    results = check({"peers": "1"}, TREE)
    verdicts = [result.verdict for result in results]
    assert sorted(verdict.value for verdict in verdicts) == ["error", "ok", "ok"]
    (bad,) = [result for result in results if result.verdict is Verdict.ERROR]
    assert bad.detail == "with all links in use: FakeError: cudaErrorTooManyPeers"


def test_measuring(check: Check) -> None:
    direct, staged = check({"1-0": "slow"}, [(0, 1, DIRECT), (2, 3, STAGED)], Limits(link_s=20, measure=True))
    assert direct.verdict is Verdict.SLOWER
    assert direct.bytes_per_s is not None
    assert direct.host_bytes_per_s is not None
    assert direct.bytes_per_s < LARGE_BYTES / SLOW_S * 1.01
    assert direct.host_bytes_per_s > direct.bytes_per_s
    assert staged.verdict is Verdict.OK
    assert staged.bytes_per_s == staged.host_bytes_per_s
    for result in (direct, staged):
        assert result.latency_s is not None
        assert 0 < result.latency_s < 1


def test_a_gpu_that_cannot_be_used_is_no_finding_about_links(check: Check) -> None:
    with pytest.raises(DeviceError, match=r"GPU 1: FakeError: cudaErrorDevicesUnavailable"):
        check({"select 1": "raise"}, TREE)
    with pytest.raises(DeviceError, match=r"GPU 3: the process of the test ended with code 3"):
        check({"select 3": "die"}, TREE)


def test_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"testing the links of GPUs needs cupy.*paratrain\[cuda13\]"):
        check_links([GpuMember(0), GpuMember(1)], [(0, 1, DIRECT)], Limits())


def test_nothing_to_test(check: Check) -> None:
    assert check({}, []) == []
