"""Testing links: what ``paratrain topology --check`` and ``paratrain train --check-links`` do."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from paratrain.comm import create_communicator
from paratrain.comm.communicator import Communicator
from paratrain.errors import CommunicationError, DeviceError
from paratrain.launch.abort import fail
from paratrain.launch.rank_tree import RankTree, describe_tree
from paratrain.linktest.cache import LinkCache
from paratrain.linktest.gpus import Edge, GpuMember, check_links
from paratrain.linktest.ranks import RankCheck, check_tree
from paratrain.linktest.results import Limits, LinkResult, Verdict
from paratrain.linktest.runtime import DEFAULT_RUNTIME
from paratrain.linktest.timed import LinkTimeoutError
from paratrain.linktest.veto import TestedPlan, apply_results, plan_tested
from paratrain.linktest.words import rank_warnings
from paratrain.topology.machine import Machine
from paratrain.topology.planning.plan import Plan, plan_machine
from paratrain.topology.tree import Tree

__all__ = [
    "Tested",
    "check_before_training",
    "check_gpus",
    "check_ranks",
    "checked_tree",
    "known_links",
    "plan_gpus",
    "verdicts",
]

logger = logging.getLogger(__name__)

Replan = Callable[[Machine], Plan]


@dataclass(frozen=True)
class Tested:
    """A plan that keeps to what is known of the links, and what was found on the way; `has_tree` is false if all fail."""

    plan: Plan
    results: Sequence[LinkResult] = ()
    has_tree: bool = True


def known_links(machine: Machine) -> tuple[Machine, list[LinkResult]]:
    """The machine with what earlier tests of its links have found, and these findings, from the user's cache folder."""
    cache = LinkCache.of(machine)
    known = [] if cache is None else cache.read()
    return apply_results(machine, known), known


def check_gpus(machine: Machine, replan: Replan, limits: Limits, runtime: str = DEFAULT_RUNTIME) -> TestedPlan:
    """Plan for the machine's GPUs, test every link of the plan, plan around the bad ones; what was found is kept.

    Nothing that was found earlier counts.
    """
    cache = LinkCache.of(machine)
    tested = plan_tested(machine, replan, _tester(machine, limits, runtime))
    if cache is not None:
        cache.write(tested.results)
    return tested


def plan_gpus(machine: Machine, byte_count: int, limits: Limits, runtime: str = DEFAULT_RUNTIME) -> Plan:
    """The plan for training on these GPUs: only the links of which nothing is known yet are tested.

    Only bad links change the plan: without `limits.measure` there are no figures. Each bad link is logged, and so is the reason
    where nothing can be tested: other processes may be kept from GPUs that ranks already use (a compute mode, a container).
    """
    if len(machine.gpus) < 2:
        return plan_machine(machine, byte_count)
    cache = LinkCache.of(machine)
    known = [] if cache is None else cache.read()
    try:
        tested = plan_tested(
            machine, lambda found: plan_machine(found, byte_count), _tester(machine, limits, runtime), known
        )
    except DeviceError as error:
        logger.warning("The links between the GPUs are used without having been tested: %s", error)
        return plan_machine(apply_results(machine, known), byte_count)
    if cache is not None and len(tested.results) > len(known):
        cache.write(tested.results)
    for warning in tested.machine.warnings[len(machine.warnings) :]:
        logger.warning("%s: %s", warning.code, warning.message)
    return tested.plan


def check_before_training(communicator: Communicator, machine: Machine, byte_count: int) -> Plan | None:
    """Once before training with several GPUs on a node: test the links that were never tested, and log what is bad.

    Every rank calls it with the GPUs of its node; the lowest rank of the node does it and gets the plan, the others None.
    """
    if len(machine.gpus) < 2 or communicator.local_rank != 0:
        return None
    return plan_gpus(machine, byte_count, Limits())


def check_ranks(communicator: Communicator, tree: Tree, limits: Limits, exchange: str = "tree") -> RankCheck:
    """Test every link of a tree of ranks, as training by `exchange` uses them, and plan around the bad ones.

    All ranks call it and get the same answer.
    """
    transport = create_communicator()
    found = check_tree(communicator, transport, tree, limits, exchange)
    if not any(result.verdict in (Verdict.HANG, Verdict.ERROR) for result in found.results):
        transport.close()  # with a message still on its way, closing may wait for ever
    return found


def checked_tree(
    communicator: Communicator, planned: RankTree, limits: Limits | None = None, exchange: str = "tree"
) -> RankTree:
    """The tree that training should use: the planned one, or another where links of it are bad, which is logged.

    All ranks call it. CommunicationError, the same on all ranks, if no tree without a bad link is found. Ranks that lose
    each other are ended.
    """
    if communicator.size == 1:
        return planned
    try:
        found = check_ranks(communicator, planned.tree, limits or Limits(), exchange)
    except LinkTimeoutError as error:
        fail(communicator, error)  # the ranks could not even agree that they should end
    warnings = rank_warnings(found.results, found.tree is not None, found.problem)
    if found.tree is None:
        raise CommunicationError(f"testing the links: {'; '.join(warning.message for warning in warnings)}")
    if communicator.rank == 0:
        for warning in warnings:
            logger.warning("%s: %s", warning.code, warning.message)
        logger.info("Links: tested %d, %d bad", len(found.results), len(found.bad))
    if found.tree == planned.tree:
        return planned
    return replace(planned, tree=found.tree, description=f"{describe_tree(found.tree)} (around bad links)")


def verdicts(results: Sequence[LinkResult]) -> dict[tuple[int, int], str]:
    """The verdict of each pair: that of the direct way where both were tested."""
    return {result.pair: result.verdict.value for result in sorted(results, key=lambda one: one.transport == "ipc")}


def _tester(machine: Machine, limits: Limits, runtime: str) -> Callable[[Sequence[Edge]], list[LinkResult]]:
    members = [GpuMember(gpu.index, gpu.bus_id, gpu.index) for gpu in machine.gpus]
    return lambda edges: check_links(members, edges, limits, runtime)
