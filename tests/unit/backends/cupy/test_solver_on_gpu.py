"""A solver whose parameters and history lie on the GPU: snapshots, checks and the loss scale find them there."""

from __future__ import annotations

import logging
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.comm.threads import run_threads
from paratrain.data_parallel.sameness import SamenessCheck
from paratrain.errors import NotFiniteError, SpoiltParametersError
from paratrain.proto import SolverParameter, parse_prototxt
from paratrain.solvers import Solver, create_solver
from paratrain.solvers.device_update import DeviceFlatUpdate
from paratrain.solvers.loss_scale import DYNAMIC, LossScale
from paratrain.solvers.sgd import SGDSolver
from tests.unit.solvers.least_squares import NET, random_records, weights, write_records

FIXED = 'base_lr: 0.05 lr_policy: "fixed" '
TYPES = {
    "SGD": "momentum: 0.9",
    "Nesterov": "momentum: 0.9",
    "AdaGrad": "",
    "RMSProp": "rms_decay: 0.9",
    "AdaDelta": "momentum: 0.9 delta: 1e-4",
    "Adam": "momentum: 0.9",
    "AdamW": "momentum: 0.9",
}
PARAMS = "param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }"


def make(source: Path, settings: str, backend: str = "cupy", precision: str = "float32", batch_size: int = 4) -> Solver:
    text = NET.format(source=source, batch_size=batch_size, start=0.5, bias="true", params=PARAMS)
    settings = f"{settings} random_seed: 1 snapshot_after_train: false net_param {{ {text} }}"
    parameter = parse_prototxt(settings, SolverParameter)
    return create_solver(parameter, backend=create_backend(backend, precision))


@pytest.mark.parametrize("kind", TYPES)
def test_trains_as_the_host_does_and_resumes_bit_for_bit(tmp_path: Path, kind: str) -> None:
    source = random_records(tmp_path)
    settings = FIXED + f'type: "{kind}" {TYPES[kind]} weight_decay: 0.01 snapshot_prefix: "{tmp_path}/line"'
    straight, resumed, host = make(source, settings), make(source, settings), make(source, settings, "numpy")
    assert isinstance(straight.flat_update, DeviceFlatUpdate)
    host.step(10)
    straight.step(5)
    straight.snapshot()
    straight.step(5)
    resumed.restore(f"{tmp_path}/line_iter_5.solverstate")
    resumed.step(5)
    assert weights(resumed) == weights(straight)
    assert weights(straight) == pytest.approx(weights(host), rel=1e-5)
    for solver in (straight, resumed, host):
        solver.close()


def test_a_snapshot_leaves_everything_on_the_gpu(tmp_path: Path) -> None:
    solver = make(random_records(tmp_path), FIXED + f'type: "Adam" snapshot_prefix: "{tmp_path}/line"')
    solver.step(2)
    memories: list[Any] = [solver.net.parameters.data, *solver.flat_update.history]
    assert [memory.places[1] for memory in memories] == [True] * 3
    solver.snapshot()
    assert [memory.places for memory in memories] == [(True, True, False)] * 3
    before = [memory.host().copy() for memory in memories]
    solver.step(1)
    for memory, values in zip(memories, before, strict=True):
        assert not np.array_equal(memory.host(), values)
    solver.close()


def test_the_checksums_of_ranks_are_of_the_newest_values(tmp_path: Path) -> None:
    source = random_records(tmp_path)

    def main(communicator: Any) -> None:
        solver = make(source, FIXED)
        check = SamenessCheck(solver, communicator, 1)
        seen = set()
        for _ in range(2):
            solver.step(1)  # which checks
            check.check()
            assert not any(memory.places[2] for memory in [solver.net.parameters.data])  # type: ignore[attr-defined]
            seen.add(zlib.crc32(solver.net.params["line"][0].data_memory.host().tobytes()))
        assert len(seen) == 2
        solver.close()

    run_threads(1, main)


@pytest.mark.parametrize("extra", ["", "clip_gradients: 1 ", "larc: true "])
def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path: Path, extra: str) -> None:
    solver = make(random_records(tmp_path), FIXED + extra)
    solver.step(1)
    before = weights(solver)
    solver.add_callback(lambda: None, lambda: solver.net.params["line"][0].diff[0].fill(np.nan))
    with pytest.raises(NotFiniteError, match="iteration 1"):
        solver.step(1)
    if extra:  # the norm has told it beforehand
        assert weights(solver) == before
        solver.callbacks.clear()
        solver.step(1)
    else:
        assert weights(solver)[:3] == before[:3]
        with pytest.raises(SpoiltParametersError):
            solver.step(1)
    solver.close()


def test_a_spoilt_step_is_skipped(tmp_path: Path) -> None:
    solver = make(random_records(tmp_path), FIXED + "momentum: 0.9 ")
    solver.sentinel.mode = "skip"
    solver.step(1)
    before = weights(solver)
    solver.add_callback(lambda: None, lambda: solver.net.params["line"][1].diff.fill(np.inf))
    solver.step(2)
    assert (weights(solver), solver.iter) == (before, 3)
    solver.close()


@pytest.mark.parametrize("extra", ["", "clip_gradients: 1e30 "])
def test_an_overflow_of_the_scaled_loss(tmp_path: Path, extra: str) -> None:
    # See tests/unit/solvers/test_loss_scale.py: 512 is the largest power of two that the gradient can be multiplied by.
    settings = 'base_lr: 1e-36 lr_policy: "fixed" ' + extra
    solver = make(write_records(tmp_path, [[1e18]], [0]), settings, batch_size=1)
    solver.use_loss_scale(LossScale.of(DYNAMIC))
    solver.step(7)
    assert (weights(solver), solver.loss_scale.value) == ([0.5, 0.0], 512)
    solver.step(1)
    gradient = 1e30 if extra else 5e35
    assert weights(solver)[0] == pytest.approx(0.5 - 1e-36 * gradient, rel=1e-6)
    assert solver.flat_update.clipped_norm == (pytest.approx(5e35, rel=1e-6) if extra else None)
    solver.close()


def test_the_scale_reaches_the_gpu_at_once(tmp_path: Path) -> None:
    solver = make(random_records(tmp_path), FIXED)
    solver.step(1)
    diff: Any = solver.net.blobs["loss"].diff_memory
    array = diff.device(solver.backend.device)
    for scale in ("256", "2", "1"):
        solver.use_loss_scale(LossScale.of(scale))
        assert diff.places == (True, True, False)
        assert diff.device(solver.backend.device) is array
        assert float(array[0]) == float(scale)
    solver.close()


def test_a_recorded_pass_takes_the_scale_of_its_replay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = random_records(tmp_path)
    with caplog.at_level(logging.INFO):
        plain, scaled = (make(source, FIXED + "momentum: 0.9 weight_decay: 0.1 ") for _ in range(2))
        for step in range(8):
            scaled.use_loss_scale(LossScale.of(str(2.0**step)))
            plain.step(1)
            scaled.step(1)
    assert caplog.text.count("The step is recorded as a graph") >= 2
    assert weights(scaled) == weights(plain)
    plain.close()
    scaled.close()


def test_float16_scales_the_loss_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    source = random_records(tmp_path)
    halves, single = make(source, FIXED, precision="float16"), make(source, FIXED, "numpy")
    assert halves.loss_scale.is_dynamic
    assert not make(source, FIXED, precision="bfloat16").loss_scale.is_dynamic
    halves.step(4)
    # Errors of 2 and more, times 65536 over a batch of 4, are too large for a half: steps were left out until they fitted.
    left_out = [65536.0, 32768.0, 16384.0, 8192.0].index(halves.loss_scale.value)
    assert left_out > 0
    fixed = make(source, FIXED, precision="float16")
    fixed.use_loss_scale(LossScale.of("1024"))
    fixed.step(20)
    single.step(20)
    assert weights(fixed) == pytest.approx(weights(single), rel=0.01, abs=3e-3)
    fixed.use_loss_scale(LossScale.of("1"))
    assert fixed.net.blobs["loss"].diff == 1.0
    for solver in (halves, fixed, single):
        solver.close()


class HalfStep(SGDSolver):
    """A type whose update is its own, though it has inherited a rule."""

    def compute_update_value(self, diff: Any, history: Any, scratch: Any, rate: float) -> None:
        self.backend.xp.multiply(diff, 0.5 * rate, out=diff)


def test_types_without_a_rule_of_their_own_run_too(tmp_path: Path) -> None:
    source = random_records(tmp_path)
    rate, half_rate = (make(source, FIXED.replace("0.05", value)) for value in ("0.05", "0.025"))
    assert SGDSolver.has_rules() and not HalfStep.has_rules()
    own = HalfStep(rate.parameter, backend=create_backend("cupy"), seed=1)
    assert not isinstance(own.flat_update, DeviceFlatUpdate)
    own.step(3)
    half_rate.step(3)
    assert weights(own) == pytest.approx(weights(half_rate), rel=1e-6)
    for solver in (rate, half_rate, own):
        solver.close()
