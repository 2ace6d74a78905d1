"""Ranks that test their links, one of which is bad: `mpirun -n N python links.py FAULT A-B LIMIT`; rank 0 prints JSON."""

from __future__ import annotations

import json
import sys
import time

from paratrain.comm import Communicator, create_communicator
from paratrain.launch import link_check
from paratrain.launch.abort import connect
from paratrain.launch.rank_tree import RankTree
from paratrain.linktest.ranks import check_tree
from paratrain.linktest.results import Limits, to_values
from paratrain.linktest.shared import SharedLinks
from paratrain.topology.planner import plan_ranks
from tests.unit.linktest.link_faults import FAULTS, FaultyCommunicator, faulty_announce


def main(fault: str, pair: str, limit_s: str) -> None:
    if fault == "lost":
        lose(float(limit_s))
    control, transport = create_communicator(), create_communicator()
    a, b = map(int, pair.split("-"))
    limits = Limits(link_s=float(limit_s))
    if fault in FAULTS:
        transport = FaultyCommunicator(transport, (a, b), fault, late_s=3 * limits.link_s)
    elif fault != "none":
        SharedLinks.announce = faulty_announce((a, b), fault)  # type: ignore[method-assign, assignment]
    found = check_tree(control, transport, plan_ranks(control.node_of_rank), limits)
    if control.rank == 0:
        edges = None if found.tree is None else list(found.tree.edges())
        print(json.dumps({"tests": [to_values(result) for result in found.results], "edges": edges}), flush=True)
    control.barrier()


def lose(limit_s: float) -> None:
    """Before training: rank 2 stops, and the others are not to wait for it for ever."""
    communicator = connect()

    def create() -> Communicator:
        made = create_communicator()
        if communicator.rank == 2:
            time.sleep(600)
        return made

    link_check.create_communicator = create
    link_check.checked_tree(communicator, RankTree(plan_ranks(communicator.node_of_rank), ""), Limits(link_s=limit_s))
    print("nobody gets here", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
