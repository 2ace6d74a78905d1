"""What tests mean for the plan, on machines of the catalogue."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from paratrain.linktest.gpus import DIRECT, STAGED, Edge
from paratrain.linktest.results import LinkResult, Verdict
from paratrain.linktest.veto import TestedPlan, apply_results, plan_tested
from paratrain.topology.known_machines import known_machine
from paratrain.topology.machine import Machine
from paratrain.topology.planning.plan import Plan, plan_machine

BYTES = 1_724_320


def replan(machine: Machine) -> Plan:
    return plan_machine(machine, BYTES)


class Links:
    """A machine's links as they really are, and a record of what was tested."""

    def __init__(self, bad: dict[tuple[int, int, str], Verdict]) -> None:
        self.bad = bad
        self.tested: list[tuple[int, int, str]] = []

    def test(self, edges: Sequence[Edge]) -> list[LinkResult]:
        results = []
        for one, other, transport in edges:
            a, b = sorted((one, other))
            self.tested.append((a, b, transport))
            verdict = self.bad.get((a, b, transport), Verdict.OK)
            results.append(LinkResult(a, b, transport, verdict, "so and so" if verdict is not Verdict.OK else ""))
        return results


def plan(machine: Machine, bad: dict[tuple[int, int, str], Verdict]) -> tuple[TestedPlan, Links]:
    links = Links(bad)
    return plan_tested(machine, replan, links.test), links


def ways(tested: TestedPlan) -> dict[tuple[int, int], str]:
    return {(min(e.parent, e.child), max(e.parent, e.child)): e.transport for e in tested.plan.edges}


def test_good_links_change_nothing() -> None:
    machine = known_machine("dgx1-v100")
    tested, links = plan(machine, {})
    assert tested.plan == replan(machine)
    assert {(a, b) for a, b, _ in links.tested} >= set(ways(tested))
    assert len(links.tested) == len(set(links.tested))
    assert tested.machine.warnings == machine.warnings


@pytest.mark.parametrize(
    ("verdict", "code", "words"),
    [
        (
            Verdict.WRONG_DATA,
            "T03",
            "a direct copy moved wrong data (so and so); planned through the host's memory; an IOMMU",
        ),
        (
            Verdict.HANG,
            "T04",
            "a direct copy hung (so and so); planned through the host's memory; a GPU that stays busy",
        ),
        (
            Verdict.SLOWER,
            "T05",
            "a direct copy is slower than the way through the host (so and so); planned through the host",
        ),
        (Verdict.ERROR, "T17", "a direct copy failed (so and so); planned through the host's memory"),
    ],
)
def test_a_bad_direct_link_is_planned_around_and_the_reason_is_told(verdict: Verdict, code: str, words: str) -> None:
    machine = known_machine("dgx1-v100")
    before = ways(TestedPlan(replan(machine), (), machine))
    pair = next(iter(before))
    tested, links = plan(machine, {(*pair, DIRECT): verdict})
    after = ways(tested)
    assert after.get(pair) != DIRECT
    (warning,) = [warning for warning in tested.machine.warnings if warning.pair == pair]
    assert warning.code == code
    assert warning.message.startswith(f"GPU{pair[0]}-GPU{pair[1]}: {words}")
    assert pair in tested.plan.machine.vetoes
    # what is used was tested, and was good
    for (a, b), transport in after.items():
        assert (a, b, transport) in links.tested
        assert (a, b, transport) not in links.bad


def test_a_machine_whose_direct_links_are_all_bad_goes_through_the_host() -> None:
    machine = known_machine("dgx1-v100")
    every = {(a, b, DIRECT): Verdict.WRONG_DATA for b in range(8) for a in range(b)}
    tested, _ = plan(machine, every)
    assert set(ways(tested).values()) == {STAGED}
    edge = tested.plan.edges[0]
    assert "in a test, a direct copy moved wrong data" in edge.reason


def test_a_pair_that_works_in_no_way_is_not_in_the_tree() -> None:
    machine = known_machine("dgx1-v100")
    pair = next(iter(ways(TestedPlan(replan(machine), (), machine))))
    tested, _ = plan(machine, {(*pair, DIRECT): Verdict.HANG, (*pair, STAGED): Verdict.ERROR})
    assert pair not in ways(tested)


def test_a_plan_never_fails() -> None:
    machine = known_machine("dgx1-v100").select([0, 1])
    tested, _ = plan(machine, {(0, 1, DIRECT): Verdict.HANG, (0, 1, STAGED): Verdict.HANG})
    assert list(ways(tested)) == [(0, 1)]
    assert [warning.code for warning in tested.machine.warnings][-2:] == ["T04", "T04"]


def test_what_is_known_is_not_tested_again() -> None:
    machine = known_machine("dgx1-v100")
    first, _ = plan(machine, {(0, 1, DIRECT): Verdict.WRONG_DATA})
    again = Links({})
    second = plan_tested(machine, replan, again.test, first.results)
    assert again.tested == []
    assert second.plan == first.plan


def test_measured_figures_replace_defaults() -> None:
    machine = known_machine("dgx1-v100")
    direct = LinkResult(0, 1, DIRECT, Verdict.OK, bytes_per_s=9e9, latency_s=7e-6, host_bytes_per_s=5e9)
    staged = LinkResult(0, 1, STAGED, Verdict.OK, bytes_per_s=5e9, latency_s=2e-5)
    for results in ([direct, staged], [staged, direct]):
        figure = apply_results(machine, results).measured[0, 1]
        assert (figure.bytes_per_s, figure.latency_s, figure.staged, figure.origin) == (9e9, 7e-6, False, "measured")
    slower = LinkResult(0, 1, DIRECT, Verdict.SLOWER, "2 and 5", bytes_per_s=2e9, latency_s=7e-6, host_bytes_per_s=5e9)
    machine = apply_results(machine, [slower, staged])
    assert machine.measured[0, 1].staged
    assert machine.measured[0, 1].bytes_per_s == 5e9


def test_pairs_of_other_gpus_are_left_out() -> None:
    machine = known_machine("dgx1-v100").select([0, 1, 2])
    assert apply_results(machine, [LinkResult(1, 7, DIRECT, Verdict.HANG)]) == machine
