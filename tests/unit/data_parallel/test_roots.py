"""Training with fewer roots than ranks: Caffe's steps, the optimizer's state on the roots alone, and snapshots of all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.comm import Communicator
from paratrain.comm.threads import run_threads
from paratrain.data_parallel import DataParallel, create_parallel_solver
from paratrain.errors import CommunicationError
from paratrain.proto import SolverParameter, parse_prototxt
from paratrain.solvers import Solver
from tests.paths import GOLDEN
from tests.unit.data_parallel.test_exchanges import NET, SETTINGS, short_slices, source
from tests.unit.data_parallel.test_golden_batches import recorded

__all__ = ["short_slices", "source"]  # fixtures

STEPS = 3


def make(
    source: Path, communicator: Communicator, roots: int | None, prefix: Path, exchange: str = "sharded"
) -> Solver:
    """Records of 12 a step, whatever the number of ranks; Adam, which remembers two values for each."""
    net = NET.format(source=source, batch=12 // communicator.size).replace('type: "Dropout"', 'type: "ReLU"')
    net = net.replace('type: "Data"', 'type: "Data" transform_param { scale: 0.004 }', 1)
    text = f'base_lr: 0.01 lr_policy: "fixed" random_seed: 3 snapshot_after_train: false {SETTINGS["adam"]}'
    text += f' snapshot_prefix: "{prefix}" net_param {{ {net} }}'
    parameter = parse_prototxt(text, SolverParameter)
    return create_parallel_solver(parameter, communicator, exchange=exchange, roots=roots)


def run(
    source: Path, prefix: Path, nodes: list[int], roots: int | None, *, resume: bool = False, exchange: str = "sharded"
) -> list[npt.NDArray[Any]]:
    """Train STEPS steps and write a snapshot, or go on from it for as many. For every rank the parameters."""

    def main(communicator: Communicator) -> npt.NDArray[Any]:
        solver = make(source, communicator, roots, prefix, exchange)
        if resume:
            solver.restore(f"{prefix}_iter_{STEPS}.solverstate")
        solver.step(STEPS)
        if not resume:
            solver.snapshot()
        values: npt.NDArray[Any] = solver.net.parameters.data.host().copy()
        communicator.barrier()
        solver.close()
        return values

    found = run_threads(len(nodes), main, nodes)
    assert all(np.array_equal(one, found[0]) for one in found)
    return found


@pytest.mark.parametrize("nodes", [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 2, 3]])
def test_four_ranks_with_two_roots_follow_caffe(
    nodes: list[int], mnist_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paratrain.data_parallel.ways.slice_length", lambda *_: 1500)
    expected = np.load(GOLDEN / "solvers" / "sgd_batch_64.npz")["loss"][:20]
    parameter = recorded(mnist_folder, 16)

    def main(communicator: Communicator) -> tuple[list[float], bytes, str, int]:
        solver = create_parallel_solver(parameter, communicator, exchange="sharded", roots=2)
        if communicator.rank == 0:
            solver.net.copy_from(str(GOLDEN / "solvers" / "init.caffemodel"))
        losses = []
        for _ in expected:
            solver.step(1)
            losses.append(float(solver.net.blobs["loss"].data))
        held = solver.net.parameters.data.host().tobytes()
        communicator.barrier()
        assert isinstance(solver.shares, DataParallel)
        found = losses, held, solver.shares.description, sum(stop - start for start, stop in solver.shares.owned)
        solver.close()
        return found

    found = run_threads(4, main, nodes)
    np.testing.assert_allclose(np.mean([losses for losses, *_ in found], axis=0), expected, rtol=1e-4)
    assert len({held for _, held, *_ in found}) == 1
    assert all(description.endswith("2 of 4 ranks update a part each") for _, _, description, _ in found)
    owned = [count for *_, count in found]
    assert sum(map(bool, owned)) == 2
    assert all(abs(count - sum(owned) / 2) < 0.1 * sum(owned) for count in owned if count)


@pytest.mark.usefixtures("short_slices")
def test_a_snapshot_goes_on_with_any_number_of_roots_and_ranks(source: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "net"
    run(source, prefix, [0] * 4, 2)
    same = run(source, prefix, [0] * 4, 2, resume=True)[0]
    for nodes, roots in (([0] * 4, 3), ([0] * 4, None)):
        assert np.array_equal(run(source, prefix, nodes, roots, resume=True)[0], same)
    for nodes, roots in (([0] * 4, 1), ([0] * 3, 2), ([0, 0, 1, 1], 3), ([0, 1], 1), ([0], 1)):
        np.testing.assert_allclose(run(source, prefix, nodes, roots, resume=True)[0], same, rtol=2e-3, atol=2e-5)
    tree = run(source, prefix, [0, 1, 1], None, resume=True, exchange="tree")[0]
    np.testing.assert_allclose(tree, same, rtol=2e-3, atol=2e-5)


@pytest.mark.usefixtures("short_slices")
def test_a_snapshot_of_fewer_roots_is_the_state_of_all(source: Path, tmp_path: Path) -> None:
    """Not a byte of the two files tells how many roots there were."""
    files = []
    for roots in (2, 4):
        prefix = tmp_path / f"roots{roots}" / "net"
        prefix.parent.mkdir()
        run(source, prefix, [0] * 4, roots)
        files.append(
            [(prefix.parent / f"net_iter_{STEPS}.{end}").read_bytes() for end in ("caffemodel", "solverstate")]
        )
    assert files[0][0] == files[1][0]
    states = [text.replace(b"roots2", b"roots?").replace(b"roots4", b"roots?") for text in (files[0][1], files[1][1])]
    assert states[0] == states[1]


@pytest.mark.parametrize(("exchange", "roots"), [("sharded", 3), ("tree", 1), ("ring", 2), ("auto", 2)])
def test_what_cannot_be_is_said_at_once(exchange: str, roots: int, source: Path, tmp_path: Path) -> None:
    def main(communicator: Communicator) -> None:
        with pytest.raises(CommunicationError, match=f"--roots {roots}"):
            make(source, communicator, roots, tmp_path / "net", exchange)

    run_threads(2, main)


def test_the_prediction_knows_the_roots(source: Path, tmp_path: Path) -> None:
    def main(communicator: Communicator) -> tuple[float, float]:
        times = []
        for roots in (1, 4):
            solver = make(source, communicator, roots, tmp_path / "net")
            assert isinstance(solver.shares, DataParallel)
            assert solver.shares.choice is not None
            times.append(solver.shares.choice.predictions[0].update_s)
            communicator.barrier()
            solver.close()
        return times[0], times[1]

    for one, four in run_threads(4, main):
        assert one == pytest.approx(4 * four * 8 / 7)  # one root reads sums that have left its cache
