"""cuDNN on one stream: plans by task, built once, and run."""

from __future__ import annotations

import contextlib
import itertools
import logging
import weakref
from collections.abc import Mapping
from typing import Any

from paratrain import gpu
from paratrain.backends.cupy.convolution import note_absence_of_cudnn
from paratrain.backends.cupy.cudnn.choices import Choices
from paratrain.backends.cupy.cudnn.graph import ALIGNMENT, ConvolutionTask, Operand
from paratrain.backends.cupy.cudnn.library import UnsupportedError, failures, library, problem, version
from paratrain.backends.cupy.cudnn.plans import Plan, built_plans, refused_notes
from paratrain.backends.cupy.noting import note
from paratrain.backends.cupy.precision import Precision
from paratrain.backends.cupy.workspace import Workspace
from paratrain.errors import DeviceError

__all__ = ["CudnnRunner", "create_runner"]

logger = logging.getLogger(__name__)

_MOST_PLANS = 4096
_MOST_MEASURED = 12
"""So many plans of a task are measured, those that cuDNN expects to be the quickest."""
_RUNS = 5
_MOST_WORKSPACE_BYTES = 2 << 30


class CudnnRunner:
    """Runs tasks in ``precision`` on the stream, by the plans that cuDNN names first; where it ``measures``, by the quickest.

    Measured are the first plans of a task, when it first runs, on its own arrays. The choice is kept (see :class:`Choices`), so
    that later runs, which would measure a little differently, take the same plan and give the same bits. All memory beside
    the arrays comes from the workspace; nothing is allocated once a task has run.
    """

    def __init__(
        self,
        stream: Any,
        workspace: Workspace,
        precision: Precision,
        *,
        fast: bool = False,
        measures: bool = False,
        choices: Choices | None = None,
    ) -> None:
        cudnn = library()
        self.precision = precision
        self._stream, self._workspace = stream, workspace
        self._handle = cudnn.create_handle()
        weakref.finalize(self, cudnn.destroy_handle, self._handle).atexit = False
        cudnn.set_stream(handle=self._handle, stream=stream.ptr)
        self._refused = refused_notes(precision, fast=fast)
        self._plans: dict[ConvolutionTask, Plan | UnsupportedError] = {}
        self._unmeasured: set[ConvolutionTask] = set()
        self._choices = choices
        if measures and choices is None:
            properties = gpu.library().cuda.runtime.getDeviceProperties(gpu.library().cuda.Device().id)
            allowed = f"{precision.value}{' fast' if fast else ''}"
            self._choices = Choices(f"cuDNN {version()}, {properties['name'].decode()}, {allowed}")

    @property
    def channels_last(self) -> bool:
        """The order in which its kernels are quickest. Tensor cores want channels last; kernels without them want channels
        second, and would copy other arrays to that order and back.
        """
        return self.precision is not Precision.FLOAT32

    def prepare(self, task: ConvolutionTask) -> None:
        """Make sure that a task can run. Raises UnsupportedError where cuDNN has no plan for it."""
        found = self._plans.get(task)
        if found is None:
            if len(self._plans) >= _MOST_PLANS and not self._workspace.is_recording:
                self._drop_plans()
            try:
                found = self._first_plan(task)
            except UnsupportedError as error:
                found = error
            self._plans[task] = found
        if isinstance(found, UnsupportedError):
            raise UnsupportedError(str(found))
        self._workspace.reserve(found.workspace_bytes)

    def run(self, task: ConvolutionTask, arrays: Mapping[Operand, Any]) -> None:
        """Run a task. All ``arrays`` begin at multiples of ALIGNMENT bytes. Raises UnsupportedError, DeviceError."""
        self.prepare(task)
        addresses = {int(operand): int(array.data.ptr) for operand, array in arrays.items()}
        for operand, address in addresses.items():
            assert address % ALIGNMENT == 0, f"{Operand(operand).name} of {task.key} lies at {address:#x}"
        if task in self._unmeasured:
            self._unmeasured.remove(task)
            self._plans[task] = self._measured_plan(task, addresses)
        plan = self._plans[task]
        assert isinstance(plan, Plan)
        note(f"cuDNN {plan.name}")
        self._execute(task, plan, addresses)

    def plan_of(self, task: ConvolutionTask) -> Plan:
        """The plan by which a task that was prepared runs."""
        plan = self._plans[task]
        assert isinstance(plan, Plan)
        return plan

    def _drop_plans(self) -> None:
        """Give the plans back that no recorded graph uses: what was compiled for a plan goes with it."""
        self._stream.synchronize()  # nor does the GPU run them
        used = self._workspace.used_by_graphs()
        self._plans = {task: plan for task, plan in self._plans.items() if id(plan) in used}

    def _first_plan(self, task: ConvolutionTask) -> Plan:
        if self._choices is not None:
            chosen = self._choices.get(task.key)
            if chosen is None:
                self._unmeasured.add(task)
            else:
                with contextlib.suppress(UnsupportedError):  # a plan of that name there is no more
                    return next(built_plans(task, self._refused, only=chosen, handle=self._handle))
        return next(built_plans(task, self._refused, handle=self._handle))

    def _measured_plan(self, task: ConvolutionTask, addresses: dict[int, int]) -> Plan:
        """Measure the plans of a task, note the quickest (of equals the first) and return what was noted first."""
        assert self._choices is not None
        plans = {}
        times_ms = {}
        wanted_bytes = self._workspace.wanted_bytes
        found_plans = built_plans(task, self._refused, tensor_cores_first=False, handle=self._handle)
        for plan in itertools.islice(found_plans, _MOST_MEASURED):
            if plan.workspace_bytes <= _MOST_WORKSPACE_BYTES and plan.name not in plans:
                plans[plan.name] = plan
                try:
                    times_ms[plan.name] = self._time_ms(task, plan, addresses)
                except DeviceError as error:  # of one plan, such as too little memory
                    logger.debug("%s is left out: %s", plan.name, error)
        self._workspace.shrink(wanted_bytes)  # plans that were only measured may have wanted much
        if not times_ms:
            return self.plan_of(task)
        quickest = min(times_ms, key=lambda name: times_ms[name])
        name = self._choices.settle(task.key, quickest)
        logger.debug("%s: %s of %d, %.3f ms", task.key, name, len(times_ms), times_ms.get(name, -1.0))
        found = plans.get(name, plans[quickest])
        self._workspace.reserve(found.workspace_bytes)
        return found

    def _time_ms(self, task: ConvolutionTask, plan: Plan, addresses: dict[int, int]) -> float:
        """The least time of several runs, in milliseconds."""
        cupy, times = gpu.library(), []
        self._execute(task, plan, addresses)
        for _ in range(_RUNS):
            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            begin.record(self._stream)
            self._execute(task, plan, addresses)
            end.record(self._stream)
            end.synchronize()
            times.append(float(cupy.cuda.get_elapsed_time(begin, end)))
        return min(times)

    def _execute(self, task: ConvolutionTask, plan: Plan, addresses: dict[int, int]) -> None:
        room = self._workspace.take(plan.workspace_bytes, "u1").data.ptr if plan.workspace_bytes else 0
        self._workspace.note_use(plan)
        try:
            plan.graph.execute_plan_at_index(addresses, int(room), plan.index, handle=self._handle)
        except failures() as error:
            raise DeviceError(f"cuDNN failed at {task.key} by plan {plan.name}: {error}") from error


def create_runner(
    stream: Any,
    workspace: Workspace,
    precision: Precision,
    *,
    fast: bool = False,
    measures: bool = False,
) -> CudnnRunner | None:
    """Return a runner; None, with a line in the log, where cuDNN cannot be used."""
    reason = problem()
    if reason is None:
        try:
            return CudnnRunner(stream, workspace, precision, fast=fast, measures=measures)
        except RuntimeError as error:
            reason = f"it does not start: {error}"
    note_absence_of_cudnn(reason)
    return None
