"""Which of cuDNN's plans run: filters, measurements, and the file that remembers them. On the simulated GPU."""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paratrain.backends.base import ConvolutionGeometry
from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.cupy.cudnn.choices import Choices
from paratrain.backends.cupy.cudnn.graph import ConvolutionTask, Direction, Operand, strides
from paratrain.backends.cupy.cudnn.library import UnsupportedError
from paratrain.backends.cupy.cudnn.runner import CudnnRunner
from paratrain.errors import DeviceError

GEOMETRY = ConvolutionGeometry(2, 3, (5, 4), 8, (3, 3), (1, 1), (1, 1), (1, 1))
TASK = ConvolutionTask(Direction.BACKWARD_WEIGHTS, GEOMETRY, "float32", False)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def delays(simulated_gpu: Any) -> Iterator[dict[str, float]]:
    """How long each plan of the stand-in for cuDNN takes, in seconds."""
    import cudnn

    yield cudnn.delays_s
    cudnn.delays_s.clear()


def runner_of(backend: CupyBackend) -> CudnnRunner:
    assert backend.cudnn is not None
    return backend.cudnn


def arrays(backend: CupyBackend, task: ConvolutionTask = TASK) -> dict[Operand, Any]:
    random = np.random.default_rng(1)
    geometry = task.geometry
    shapes = {
        Operand.BOTTOM: (geometry.batch, geometry.channels, *geometry.spatial),
        Operand.WEIGHTS: (geometry.output_channels, geometry.channels // geometry.groups, *geometry.kernel),
        Operand.TOP: (geometry.batch, geometry.output_channels, *geometry.output_spatial),
    }
    return {kind: backend.xp.asarray(random.normal(size=shape).astype(np.float32)) for kind, shape in shapes.items()}


def run(backend: CupyBackend, task: ConvolutionTask = TASK) -> bytes:
    given = arrays(backend, task)
    runner_of(backend).run(task, given)
    result: bytes = given[task.output].get().tobytes()
    return result


@pytest.mark.parametrize(
    ("precision", "fast", "expected"),
    [
        ("float32", False, ["eng1", "eng0"]),
        ("float32", True, ["eng2_k2=0", "eng1", "eng0"]),
        ("tf32", False, ["eng50_k2=1", "eng51_k2=3", "eng1", "eng0"]),
        ("tf32", True, ["eng50_k2=1", "eng51_k2=3", "eng2_k2=0", "eng1", "eng0"]),
    ],
)
def test_which_plans_are_allowed(precision: str, fast: bool, expected: list[str]) -> None:
    from paratrain.backends.cupy.cudnn.plans import built_plans

    backend = CupyBackend(precision, fast=fast)
    runner = runner_of(backend)
    plans = list(built_plans(TASK, runner._refused, handle=runner._handle))
    assert [plan.name for plan in plans] == expected
    runner.prepare(TASK)
    assert runner.plan_of(TASK).name == expected[0]


def test_the_same_bits_each_time_unless_fast() -> None:
    assert run(CupyBackend()) == run(CupyBackend())
    assert run(CupyBackend(fast=True)) != run(CupyBackend(fast=True))


def test_the_quickest_plan_is_found_and_remembered(delays: dict[str, float], tmp_path: Path) -> None:
    delays.update({"eng50_k2=1": 0.01, "eng51_k2=3": 0.01, "eng0": 0.01})
    first = CupyBackend("tf32", autotune=True)
    bits = run(first)
    assert runner_of(first).plan_of(TASK).name == "eng1"
    content = json.loads((tmp_path / "paratrain" / "cudnn-plans.json").read_text())
    ((setting, choices),) = content["choices"].items()
    assert setting.startswith("cuDNN 9.28.0, ") and setting.endswith(", tf32")
    assert choices == {TASK.key: "eng1"}
    delays.update({"eng1": 0.02})  # the next run would find another one
    second = CupyBackend("tf32", autotune=True)
    assert run(second) == bits and runner_of(second).plan_of(TASK).name == "eng1"
    plain = CupyBackend("tf32")
    assert run(plain) != bits and runner_of(plain).plan_of(TASK).name == "eng50_k2=1"


def test_nothing_is_measured_while_a_stream_is_recorded(delays: dict[str, float]) -> None:
    backend = CupyBackend("tf32", autotune=True)
    given = arrays(backend)
    for _ in range(2):
        runner_of(backend).run(TASK, given)
    before = given[Operand.WEIGHTS].get()
    recording = backend.record(lambda: runner_of(backend).run(TASK, given))
    assert recording is not None
    given[Operand.WEIGHTS].fill(0)
    recording.replay()
    np.testing.assert_array_equal(given[Operand.WEIGHTS].get(), before)


def test_a_choice_that_is_no_plan_any_more_is_measured_anew(delays: dict[str, float], tmp_path: Path) -> None:
    backend = CupyBackend("tf32", autotune=True)
    choices = runner_of(backend)._choices
    assert choices is not None
    choices.settle(TASK.key, "eng999")
    run(backend)
    assert runner_of(backend).plan_of(TASK).name == "eng50_k2=1"


def test_who_notes_first_is_right(tmp_path: Path) -> None:
    path = tmp_path / "plans.json"
    assert Choices("here", path).settle("task", "first") == "first"
    assert Choices("here", path).settle("task", "second") == "first"
    assert Choices("there", path).settle("task", "third") == "third"
    assert [Choices(setting, path).get("task") for setting in ("here", "there", "nowhere")] == ["first", "third", None]


def _settle(path: Path, number: int, out: Any) -> None:
    out.put([Choices("here", path).settle(f"task {index}", str(number)) for index in range(20)])


def test_processes_agree(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    processes = [context.Process(target=_settle, args=(tmp_path / "plans.json", number, out)) for number in range(3)]
    for process in processes:
        process.start()
    found = [out.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 0, "choices": {}}', "{"])
def test_a_damaged_file_is_written_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "plans.json"
    path.write_text(content)
    assert Choices("here", path).get("task") is None
    assert Choices("here", path).settle("task", "name") == "name"
    assert Choices("here", path).get("task") == "name"


def test_a_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    choices = Choices("here", tmp_path / "file" / "plans.json")
    with caplog.at_level(logging.WARNING):
        assert choices.get("task") is None
        assert choices.settle("task", "name") == "name"
    assert "cannot be noted" in caplog.text


def test_four_axes_and_empty_arrays_are_refused() -> None:
    runner = runner_of(CupyBackend())
    for changes in (
        {"spatial": (2,) * 4, "kernel": (1,) * 4, "stride": (1,) * 4, "pad": (0,) * 4, "dilation": (1,) * 4},
        {"batch": 0},
    ):
        with pytest.raises(UnsupportedError):
            runner.prepare(dataclasses.replace(TASK, geometry=dataclasses.replace(GEOMETRY, **changes)))


def test_a_failure_names_task_and_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = CupyBackend()
    runner = runner_of(backend)
    runner.prepare(TASK)
    graph = runner.plan_of(TASK).graph

    def fail(*arguments: Any, **named: Any) -> None:
        raise RuntimeError("CUDNN_STATUS_EXECUTION_FAILED")

    monkeypatch.setattr(graph, "execute_plan_at_index", fail)
    with pytest.raises(DeviceError, match=r"wgrad float32 plain \(2, 3, 5, 4\) to 8 .* by plan eng1: CUDNN_STATUS"):
        run(backend)


def test_nothing_is_allocated_once_a_task_has_run(simulated_gpu: Any) -> None:
    import simulated

    backend = CupyBackend("tf32")
    given = arrays(backend)
    runner_of(backend).run(TASK, given)
    before = simulated.counts["allocate"], simulated.counts["malloc"]
    runner_of(backend).run(TASK, given)
    assert (simulated.counts["allocate"], simulated.counts["malloc"]) == before


def test_strides() -> None:
    assert strides((2, 3, 5, 7), channels_last=False) == [105, 35, 7, 1]
    assert strides((2, 3, 5, 7), channels_last=True) == [105, 1, 21, 3]
    assert strides((2, 3, 4, 5, 7), channels_last=True) == [420, 1, 105, 21, 3]


def test_no_gpu_no_cudnn(simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import cudnn

    def refuse() -> int:
        raise RuntimeError("cudnnHandle Create failed")

    monkeypatch.setattr(cudnn, "create_handle", refuse)
    assert CupyBackend().cudnn is None
