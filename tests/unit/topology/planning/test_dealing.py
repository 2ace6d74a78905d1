from __future__ import annotations

import pytest
from hypothesis import given, settings

from paratrain.errors import DeviceError
from paratrain.topology.known_machines import known_machine
from paratrain.topology.machine import Machine
from paratrain.topology.planning.dealing import deal_gpus
from paratrain.topology.planning.plan import plan_machine
from tests.unit.topology.machines import random_machines


def test_the_root_goes_to_rank_0() -> None:
    machine = known_machine("caffe-4x-pcie").select([0, 1, 3, 2])
    plan = plan_machine(machine, 1_724_320, root=3)
    deal = deal_gpus(plan.rank_order, 4)
    assert deal.gpu_of_rank == (3, 0, 1, 2)
    assert (deal.idle, deal.shared) == ((), ())
    assert plan.rank_tree is not None and plan.rank_tree.root == 0


def test_fewer_ranks_than_gpus() -> None:
    assert deal_gpus([3, 1, 0], 2).gpu_of_rank == (3, 1)
    assert deal_gpus([3, 1, 0], 2).idle == (0,)
    assert deal_gpus([3, 1, 0], 0).idle == (3, 1, 0)


def test_more_ranks_than_gpus() -> None:
    deal = deal_gpus([3, 1], 5)
    assert deal.gpu_of_rank == (3, 1, 3, 1, 3)
    assert (deal.idle, deal.shared) == ((), (1, 3))


def test_nothing_to_deal() -> None:
    assert deal_gpus([], 0).gpu_of_rank == ()
    with pytest.raises(DeviceError, match="2 ranks and no GPU; use --cpu"):
        deal_gpus([], 2)
    with pytest.raises(DeviceError, match="expected each GPU once, found"):
        deal_gpus([1, 1], 2)


@settings(deadline=None, max_examples=30, derandomize=True)
@given(random_machines(8))
def test_ranks_take_the_places_of_their_gpus(machine: Machine) -> None:
    plan = plan_machine(machine, 1_724_320)
    assert plan.tree is not None and plan.rank_tree is not None
    gpus = deal_gpus(plan.rank_order, plan.tree.size).gpu_of_rank
    assert gpus[0] == plan.index(plan.tree.root)
    for rank, gpu in enumerate(gpus):
        place = machine.indices.index(gpu)
        assert [gpus[child] for child in plan.rank_tree.children[rank]] == [
            plan.index(child) for child in plan.tree.children[place]
        ]
