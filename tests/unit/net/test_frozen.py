"""Parameters that do not learn take no gradient, no history and no part in the exchange."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from paratrain.backends import create_backend
from paratrain.blob import Head, SyncedMemory
from paratrain.proto import NetParameter, SolverParameter, parse_prototxt
from paratrain.solvers import create_solver
from tests.unit.net.build import DATA, LABEL, build, inner_product

FROZEN = "param { lr_mult: 0 } param { lr_mult: 0 }"
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "c" bottom: "label" top: "loss" }'
LAYERS = [
    DATA, LABEL, inner_product("a", "data", "a"), inner_product("b", "a", "b", 5, FROZEN), inner_product("c", "b", "c", 2), LOSS,
]  # fmt: skip


def test_frozen_values_lie_behind_the_others_and_have_no_gradient() -> None:
    net = build(*LAYERS)
    places = {entry.label: (entry.start, entry.stop) for entry in net.parameters.entries}
    assert places == {
        "a[0]": (0, 12),
        "a[1]": (12, 16),
        "c[0]": (16, 26),
        "c[1]": (26, 28),
        "b[0]": (28, 48),
        "b[1]": (48, 53),
    }
    assert net.parameters.data.count == 53
    assert net.parameters.diff.count == 28
    net.forward(data=[[1, 2, 3]] * 2, label=[0, 1])
    net.backward()
    memory = net.params["b"][0].diff_memory
    assert isinstance(memory, SyncedMemory)
    assert memory.head is Head.UNINITIALIZED
    assert net.params["a"][0].diff.any()


def test_forced_gradients_of_frozen_parameters_are_computed_and_cleared() -> None:
    net = build("force_backward: true", *LAYERS)
    net.forward(data=[[1, 2, 3]] * 2, label=[0, 1])
    net.backward()
    once = net.params["b"][0].diff.copy()
    assert once.any()
    net.clear_param_diffs()
    assert not net.params["b"][0].diff.any()
    net.backward()
    np.testing.assert_array_equal(net.params["b"][0].diff, once)


def test_training_leaves_them_and_a_state_holds_zeros_for_them(tmp_path: Path) -> None:
    parameter = SolverParameter(
        base_lr=0.1, lr_policy="fixed", momentum=0.9, weight_decay=0.1, max_iter=9, random_seed=1,
        snapshot_prefix=str(tmp_path / "x"), net_param=parse_prototxt("\n".join(LAYERS), NetParameter),
    )  # fmt: skip
    solver = create_solver(parameter, backend=create_backend())
    solver.net.blobs["data"].data[...] = [[1, 2, 3], [3, 1, 2]]
    solver.net.blobs["label"].data[...] = [0, 1]
    before = {name: blobs[0].data.copy() for name, blobs in solver.net.params.items()}
    solver.step(2)
    solver.snapshot()
    np.testing.assert_array_equal(solver.net.params["b"][0].data, before["b"])
    assert (solver.net.params["a"][0].data != before["a"]).any()
    history = [flat.copy() for flat in solver.flat_update.host_history()]
    assert history[0].shape == (28,)
    solver.step(1)
    solver.restore(str(tmp_path / "x_iter_2.solverstate"))
    np.testing.assert_array_equal(solver.flat_update.host_history()[0], history[0])
    solver.close()
