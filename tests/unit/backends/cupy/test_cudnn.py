"""Which of cuDNN's plans run: filters, measurements, and the file that remembers them. On the simulated GPU."""

from __future__ import annotations

import dataclasses
import gc
import importlib.machinery
import importlib.util
import json
import logging
import multiprocessing
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paratrain.backends.base import ConvolutionGeometry
from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.cupy.cudnn.choices import Choices
from paratrain.backends.cupy.cudnn.convolution import CudnnConvolution
from paratrain.backends.cupy.cudnn.graph import ConvolutionTask, Direction, Operand, strides
from paratrain.backends.cupy.cudnn.library import UnsupportedError, library
from paratrain.backends.cupy.cudnn.runner import CudnnRunner
from paratrain.errors import DeviceError
from tests.paths import REPOSITORY
from tests.stand_in_cudnn import stand_in_cudnn

GEOMETRY = ConvolutionGeometry(2, 3, (5, 4), 8, (3, 3), (1, 1), (1, 1), (1, 1))
TASK = ConvolutionTask(Direction.BACKWARD_WEIGHTS, GEOMETRY, "float32", False)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def delays(simulated_gpu: Any) -> Iterator[dict[str, float]]:
    """How long each plan of the stand-in for cuDNN takes, in seconds."""
    cudnn = stand_in_cudnn()
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
    stand_in_cudnn()
    from paratrain.backends.cupy.cudnn.plans import built_plans

    backend = CupyBackend(precision, fast=fast)
    runner = runner_of(backend)
    plans = list(built_plans(TASK, runner._refused, handle=runner._handle))
    assert [plan.name for plan in plans] == expected
    runner.prepare(TASK)
    assert runner.plan_of(TASK).name == expected[0]


def test_tensor_cores_come_first_though_cudnn_names_others() -> None:
    stand_in_cudnn()
    geometry = ConvolutionGeometry(2, 3, (19, 19), 8, (7, 7), (4, 4), (0, 0), (1, 1))
    for dtype, channels_last, expected in (("bfloat16", True, "eng50_k2=1"), ("float32", False, "eng1")):
        runner = runner_of(CupyBackend(dtype))
        task = ConvolutionTask(Direction.FORWARD, geometry, dtype, channels_last)
        runner.prepare(task)
        assert runner.plan_of(task).name == expected
        assert runner.plan_of(task).has_tensor_cores is (dtype == "bfloat16")


def test_what_cudnn_names_first_is_measured_too(delays: dict[str, float]) -> None:
    geometry = ConvolutionGeometry(2, 3, (19, 19), 8, (7, 7), (4, 4), (0, 0), (1, 1))
    task = ConvolutionTask(Direction.FORWARD, geometry, "float16", True)
    delays.update({"eng50_k2=1": 0.01, "eng51_k2=3": 0.01, "eng1": 0.01, "eng0": 0.01})
    runner = runner_of(backend := CupyBackend("float16", autotune=True))
    runner.run(task, {kind: array.astype(np.float16) for kind, array in arrays(backend, task).items()})
    assert runner.plan_of(task).name == "eng28_k2=5"


def test_depthwise_plans_stay_in_the_order_of_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stand_in_cudnn().pygraph, "_is_of_few_channels", lambda graph: True)
    geometry = dataclasses.replace(GEOMETRY, channels=8, groups=8)
    runner = runner_of(CupyBackend("tf32"))
    for task, expected in (
        (ConvolutionTask(Direction.FORWARD, geometry, "float32", True), "eng28_k2=5"),
        (ConvolutionTask(Direction.FORWARD, dataclasses.replace(geometry, groups=2), "float32", True), "eng50_k2=1"),
    ):
        runner.prepare(task)
        assert runner.plan_of(task).name == expected


def test_no_bias_in_kernels_that_merely_always_work() -> None:
    stand_in_cudnn()
    geometry = dataclasses.replace(GEOMETRY, channels=4, groups=2)
    for precision, joined in (("tf32", False), ("bfloat16", True)):
        backend = CupyBackend(precision)
        runner = runner_of(backend)
        CudnnConvolution(runner, backend.forms, geometry, has_bias=True, relu_follows=True)
        (task,) = (task for task, plan in runner._plans.items() if not isinstance(plan, UnsupportedError))
        assert task.ends_in_bias is joined and runner.plan_of(task).has_tensor_cores


def test_what_the_front_end_calls_a_wrong_value_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pygraph = library().pygraph

    def refuse(*arguments: Any, **named: Any) -> None:
        raise ValueError("Uid 1 not found in variant pack.")

    runner = runner_of(CupyBackend())
    given = arrays(CupyBackend())
    runner.run(TASK, given)
    monkeypatch.setattr(pygraph, "execute_plan_at_index", refuse)
    with pytest.raises(DeviceError, match="Uid 1 not found"):
        runner.run(TASK, given)
    monkeypatch.setattr(pygraph, "validate", refuse)
    with pytest.raises(UnsupportedError, match="Uid 1 not found"):
        runner.prepare(dataclasses.replace(TASK, direction=Direction.FORWARD))


def test_plans_live_as_long_as_recorded_graphs_that_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from paratrain.backends.cupy.cudnn import runner as runners

    monkeypatch.setattr(runners, "_MOST_PLANS", 1)
    backend = CupyBackend()
    runner, given = runner_of(backend), arrays(backend)
    recorded, other = TASK, dataclasses.replace(TASK, direction=Direction.FORWARD)
    runner.run(recorded, given)
    graph = backend.record(lambda: runner.run(recorded, given))
    plan = runner.plan_of(recorded)
    for _ in range(2):
        runner.prepare(other)
        assert runner.plan_of(recorded) is plan
    assert graph is not None
    graph.replay()
    del graph
    backend.record(lambda: None)
    runner.prepare(dataclasses.replace(TASK, direction=Direction.BACKWARD_DATA))
    assert recorded not in runner._plans


def test_what_is_collected_while_a_stream_is_recorded() -> None:
    """A handle of cuDNN or cuBLAS that goes waits for the GPU, which would void the recording."""

    class Knot:
        def __init__(self) -> None:
            self.itself, self.backend = self, CupyBackend()
            run(self.backend)
            one = self.backend.xp.ones((1, 1), np.float32)
            self.backend.blas.product(one, one, one)

    backend = CupyBackend()
    given = arrays(backend)
    runner_of(backend).run(TASK, given)

    def work() -> None:
        runner_of(backend).run(TASK, given)
        assert [[] for _ in range(100_000)]  # enough for Python to collect of itself

    gc.collect()
    Knot()
    assert backend.record(work) is not None
    assert gc.isenabled()


def test_the_quickest_plan_of_those_that_memory_allows(
    delays: dict[str, float], monkeypatch: pytest.MonkeyPatch, simulated_gpu: Any
) -> None:
    stand_in_cudnn()
    from cudnn._graph import _Plan

    def large(plan: Any, name: str, workspace: int, notes: Any) -> None:
        plan.name, plan.notes, plan.is_built, plan.is_barred = name, notes, False, False
        plan.workspace = {"eng51_k2=3": 1 << 30, "eng50_k2=1": 1 << 26}.get(name, workspace)

    monkeypatch.setattr(_Plan, "__init__", large)
    monkeypatch.setenv("SIMULATED_GPU_BYTES", str(1 << 29))
    delays.update({"eng50_k2=1": 0.01, "eng0": 0.01})
    backend = CupyBackend("tf32", autotune=True)
    run(backend)
    assert runner_of(backend).plan_of(TASK).name == "eng1"
    assert backend.workspace.wanted_bytes == 1 << 26  # what the first wanted before any was measured


def test_the_same_bits_each_time_unless_fast() -> None:
    assert run(CupyBackend()) == run(CupyBackend())
    stand_in_cudnn()
    assert run(CupyBackend(fast=True)) != run(CupyBackend(fast=True))


def test_the_quickest_plan_is_found_and_remembered(
    delays: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays.update({"eng50_k2=1": 0.01, "eng51_k2=3": 0.01, "eng0": 0.01})
    first = CupyBackend("tf32", autotune=True)
    bits = run(first)
    assert runner_of(first).plan_of(TASK).name == "eng1"
    content = json.loads((tmp_path / "paratrain" / "cudnn-plans.json").read_text())
    ((setting, choices),) = content["choices"].items()
    assert setting.startswith("cuDNN 9.28.0, ") and setting.endswith(", tf32")
    assert choices == {TASK.key: "eng1"}
    delays.update({"eng1": 0.02})  # the next run would find another one
    cudnn, built = stand_in_cudnn(), list[int]()
    build = cudnn.pygraph.build_plan_at_index

    def note(graph: Any, index: int) -> None:
        built.append(index)
        build(graph, index)

    monkeypatch.setattr(cudnn.pygraph, "build_plan_at_index", note)
    second = CupyBackend("tf32", autotune=True)
    assert run(second) == bits and runner_of(second).plan_of(TASK).name == "eng1"
    assert len(built) <= 2  # of that name alone, barred among the first ones: building may take seconds
    plain = CupyBackend("tf32")
    assert run(plain) != bits and runner_of(plain).plan_of(TASK).name == "eng50_k2=1"


def test_nothing_is_measured_while_a_stream_is_recorded() -> None:
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


def test_the_first_plan_is_taken_where_the_noted_one_is_gone(delays: dict[str, float], tmp_path: Path) -> None:
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

    monkeypatch.setattr(type(graph), "execute_plan_at_index", fail)
    with pytest.raises(DeviceError, match=r"wgrad float32 plain \(2, 3, 5, 4\) to 8 .* by plan eng\S+: CUDNN_STATUS"):
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


def test_plans_of_a_net_are_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    script = importlib.machinery.SourceFileLoader("measure_plans", str(REPOSITORY / "scripts/gpu/measure_plans"))
    specification = importlib.util.spec_from_loader("measure_plans", script)
    assert specification is not None
    module = importlib.util.module_from_spec(specification)
    script.exec_module(module)
    words = ["--nets", "lenet", "--precisions", "bfloat16", "float32", "--batch", "1"]
    monkeypatch.setattr(sys, "argv", ["measure_plans", *words])
    assert module.main() == 0
    found = re.findall(r"lenet, (\w+): [\d.]+ ms as it is, [\d.]+ ms by the quickest plans", capsys.readouterr().out)
    assert found == ["bfloat16", "float32"]
