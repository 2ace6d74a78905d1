"""What tests of GPU links mean for the plan: figures in place of defaults, and no way over links that are bad."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from paratrain.linktest.gpus import DIRECT, STAGED, Edge
from paratrain.linktest.results import LinkResult, Verdict
from paratrain.linktest.words import bad_link
from paratrain.topology.costs.contention import MachineFabric
from paratrain.topology.link_figures import LinkFigure
from paratrain.topology.machine import Machine, MachineWarning
from paratrain.topology.planning.plan import Plan, planned_edges

__all__ = ["TestedPlan", "apply_results", "plan_tested"]

_MOST_PLANS = 8
# So bad that every other way is better, and still a way: a plan never fails.
_LAST_RESORT = LinkFigure(bytes_per_s=1e3, latency_s=60.0, staged=True, origin="measured")

_ADVICE = {
    Verdict.WRONG_DATA: "an IOMMU or PCIe access control that redirects copies between devices is the usual cause",
    Verdict.HANG: "a GPU that stays busy afterwards needs a reset",
}


@dataclass(frozen=True)
class TestedPlan:
    """A plan, every edge of which was tested, and all that was found on the way to it."""

    plan: Plan
    results: tuple[LinkResult, ...]
    machine: Machine
    """The machine with what was found, and the warnings."""

    __test__ = False  # pytest looks for classes with such names


def apply_results(machine: Machine, results: Iterable[LinkResult]) -> Machine:
    """The machine with figures of good links, vetoes of bad direct ones, and a warning for each bad one.

    Where a pair was tested on both ways, the direct one if it is good.
    """
    found = {(result.pair, result.transport): result for result in results if set(result.pair) <= set(machine.indices)}
    figures: dict[tuple[int, int], LinkFigure] = {}
    vetoes: dict[tuple[int, int], str] = {}
    warnings: list[MachineWarning] = []
    for (pair, transport), result in sorted(found.items(), key=lambda item: (item[0][0], item[0][1] == DIRECT)):
        if result.is_usable:
            figure = _figure(result)
            if figure is not None:
                figures[pair] = figure
            continue
        code, what = bad_link(result.verdict)
        way = "a direct copy" if transport == DIRECT else "the way through the host's memory"
        if transport == DIRECT:
            vetoes[pair] = f"in a test, {way} {what}"
            consequence = "planned through the host's memory"
        else:
            figures[pair] = _LAST_RESORT
            consequence = "planned around"
        sentences = [f"GPU{pair[0]}-GPU{pair[1]}: {way} {what} ({result.detail}); {consequence}"]
        sentences += [_ADVICE[result.verdict]] if result.verdict in _ADVICE else []
        warnings.append(MachineWarning(code, "; ".join(sentences), pair))
    return machine.with_measured(figures).with_vetoes(vetoes).with_warnings(*warnings)


def plan_tested(
    machine: Machine,
    replan: Callable[[Machine], Plan],
    test: Callable[[Sequence[Edge]], list[LinkResult]],
    known: Iterable[LinkResult] = (),
) -> TestedPlan:
    """Plan, test the edges that nobody has tested, and plan again with what that shows, until nothing is left to test.

    `replan` makes the plan of a machine, `test` tests (index, index, transport) links, `known` is what is known already.
    """
    results = {(result.pair, result.transport): result for result in known}
    for _ in range(_MOST_PLANS):
        tested = apply_results(machine, results.values())
        plan = replan(tested)
        waiting = [edge for edge in _edges(plan) if ((min(edge[:2]), max(edge[:2])), edge[2]) not in results]
        if not waiting:
            break
        for result in test(waiting):
            results[result.pair, result.transport] = result
    else:
        tested = apply_results(machine, results.values())
        plan = replan(tested)
    return TestedPlan(plan, tuple(results.values()), tested)


def _edges(plan: Plan) -> list[Edge]:
    """The links of all trees of a plan over GPUs, each once."""
    if not plan.machine.gpus:
        return []
    fabric = MachineFabric(plan.machine)
    edges = [edge for tree in (plan.tree, *plan.trees) if tree is not None for edge in planned_edges(fabric, tree)]
    links = {
        (min(e.parent, e.child), max(e.parent, e.child)): (e.parent, e.child, e.transport) for e in reversed(edges)
    }
    return [link for link in reversed(links.values()) if link[2] in (DIRECT, STAGED)]


def _figure(result: LinkResult) -> LinkFigure | None:
    if result.bytes_per_s is None or result.latency_s is None:
        return None
    return LinkFigure(result.bytes_per_s, result.latency_s, result.transport == STAGED, "measured")
