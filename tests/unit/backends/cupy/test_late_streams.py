"""Training on a GPU whose streams take their time: the same bits as on one that does all work at once."""

from __future__ import annotations

import hashlib
import importlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.update_rules import MomentumRule, Regularization
from paratrain.layers.cupy.device_ring import DeviceRing
from paratrain.proto import SolverParameter, parse_prototxt
from paratrain.solvers import create_solver
from tests.late_streams import late_streams
from tests.unit.data_parallel.test_exchanges import NET, source  # noqa: F401

SETTINGS = (
    'base_lr: 0.05 lr_policy: "inv" gamma: 0.1 power: 0.5 type: "SGD" momentum: 0.9 weight_decay: 0.01 random_seed: 3'
)
STEPS = 12
COUNT = 5


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def train(source: Path, folder: Path, extra: str) -> list[Any]:  # noqa: F811
    """The losses, digests of the parameters and of the history, and those of the snapshots that were written meanwhile."""
    folder.mkdir()
    net = NET.format(source=source, batch=4).replace('type: "Data"', 'type: "Data" transform_param { scale: 0.004 }', 1)
    net = net.replace("backend: LMDB", "backend: LMDB prefetch: 2")
    text = f'{SETTINGS} {extra} snapshot: 6 snapshot_prefix: "{folder}/it" net_param {{ {net} }}'
    solver = create_solver(parse_prototxt(text, SolverParameter), backend=create_backend("cupy"))
    losses = []
    for count in (1, STEPS - 1):  # within one call the host may run ahead
        solver.step(count)
        losses.append(solver.smoothed.value)
    arrays = [solver.net.parameters.data.host(), *solver.flat_update.host_history()]
    found = [losses, *(digest(array.tobytes()) for array in arrays)]
    solver.close()
    files = sorted(folder.iterdir())
    assert len(files) >= 2 * STEPS // 6
    return [*found, *((path.name, digest(path.read_bytes())) for path in files if path.suffix == ".caffemodel")]


@pytest.fixture(scope="module")
def at_once(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:  # noqa: F811
    """What a GPU without late streams gives."""
    return {
        extra: train(source, tmp_path_factory.mktemp("at_once") / "it", extra)
        for extra in ("", "clip_gradients: 0.5", "iter_size: 2")
    }


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("extra", ["", "clip_gradients: 0.5", "iter_size: 2"])
def test_late_streams_change_nothing(
    source: Path,  # noqa: F811
    tmp_path: Path,
    at_once: dict[str, list[Any]],
    caplog: pytest.LogCaptureFixture,
    extra: str,
    seed: int,
) -> None:
    caplog.set_level(logging.INFO)
    with late_streams(seed):
        found = train(source, tmp_path / "it", extra)
    assert found == at_once[extra]
    assert "The step is recorded as a graph" in caplog.text


class Numbers:
    """Batch b is COUNT times b; its top is the next row of an array on the GPU."""

    shapes = ((COUNT,),)
    kinds = (((COUNT,), np.float32),)

    def __init__(self, backend: CupyBackend, tops: Any) -> None:
        self.backend, self.rows = backend, iter(tops)

    def fill(self, batch: int, arrays: Any, part: slice) -> int:
        arrays[0][part] = batch
        return 0

    def make_tops(self, arrays: Any, tops: Any) -> None:
        self.backend.copy(arrays[0], next(self.rows))


def test_the_host_may_run_ahead_of_a_ring() -> None:
    """Places are filled again as soon as their tops have been given to the stream."""
    for seed in range(6):
        with late_streams(seed):
            backend = CupyBackend()
            tops = backend.xp.zeros((10, COUNT), np.float32)
            ring = DeviceRing(backend, Numbers(backend, tops), 2, 1)
            for batch in range(len(tops)):
                ring.fill(batch, 0, batch % 2)
                ring.show(batch % 2, [])
            assert tops.get().tolist() == [[batch] * COUNT for batch in range(len(tops))]
            ring.close()


def test_numbers_on_their_way_are_not_overwritten() -> None:
    """More updates are given to the stream than there are places for their numbers."""
    cupy = importlib.import_module("cupy")
    rates = [2.0**-step for step in range(14)]
    for seed in range(6):
        with late_streams(seed):
            update = create_backend("cupy").device_update([8], np.float32)
            assert update is not None
            data, diff, history = (cupy.full(8, value, np.float32) for value in (0, 1, 0))
            for rate in rates:
                update.prepare(MomentumRule(0.0), [rate], [0.0], scale=1.0)
                update.run(0, 8, data, [diff], [history], Regularization())
            assert data.get().tolist() == [-sum(rates)] * 8


def test_the_numbers_of_an_update_stay_until_they_are_sent() -> None:
    """Pinned memory that nobody has is another's at once, though the copies out of it and into it may still be to come."""
    runtime = importlib.import_module("cupy").cuda.runtime
    for seed in range(4):
        with late_streams(seed):
            backend = create_backend("cupy")
            update = backend.device_update([8], np.float32)
            assert update is not None
            update.prepare(MomentumRule(0.9), [0.1], [0.0], scale=1.0)
            update.send_outcome()
            del update
            runtime.deviceSynchronize()
