"""Graphs of operations: described, validated, planned and run as by the front end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import simulated
from simulated.memory import block_at

from cudnn._convolve import Window, dgrad, fprop, rounded_to_tf32, wgrad
from cudnn._names import data_type, heur_mode, numerical_note, numpy_type
from cudnn._tensor import integers, packed, tensor

__all__ = ["cudnnGraphNotSupportedError", "delays_s", "pygraph", "refusals", "streams", "tensor"]

_TYPES = (data_type.FLOAT, data_type.DOUBLE, data_type.HALF, data_type.BFLOAT16)
_ALIGNMENT = 16
_WORKSPACE_BYTES = 1536

streams: dict[int, int] = {}
"""The stream of each handle."""
delays_s: dict[str, float] = {}
refusals: list[Callable[[list[str]], str | None]] = []


class cudnnGraphNotSupportedError(Exception):  # noqa: N801
    """There is no engine for a graph."""


class _Plan:
    def __init__(self, name: str, workspace: int, notes: set[numerical_note]) -> None:
        self.name, self.workspace, self.notes = name, workspace, notes
        self.is_built = self.is_barred = False


class pygraph:  # noqa: N801
    """A convolution in one direction, after the forward one perhaps a bias and a ReLU."""

    def __init__(
        self,
        name: str = "test_graph",
        io_data_type: data_type = data_type.NOT_SET,
        intermediate_data_type: data_type = data_type.NOT_SET,
        compute_data_type: data_type = data_type.NOT_SET,
        handle: int | None = None,
    ) -> None:
        if handle not in streams:
            raise RuntimeError("a graph needs a living handle")
        self._io, self._compute, self._handle = io_data_type, compute_data_type, handle
        self._steps: list[tuple[str, list[tensor], tensor, dict[str, Any]]] = []
        self._stage = "described"
        self._plans: list[_Plan] = []

    def tensor(
        self,
        dim: list[int],
        stride: list[int],
        data_type: data_type = data_type.NOT_SET,
        is_virtual: bool = False,
        is_pass_by_value: bool = False,
        name: str = "",
        uid: int = -1,
    ) -> tensor:
        if is_pass_by_value:
            raise NotImplementedError
        return tensor(integers(dim), integers(stride), data_type, name, uid, is_virtual)

    def conv_fprop(
        self, image: tensor, weight: tensor, padding: list[int], stride: list[int], dilation: list[int], name: str = ""
    ) -> tensor:
        return self._convolution("fprop", [image, weight], padding, stride, dilation)

    def conv_dgrad(
        self,
        loss: tensor,
        filter: tensor,  # noqa: A002
        padding: list[int],
        stride: list[int],
        dilation: list[int],
        name: str = "",
    ) -> tensor:
        return self._convolution("dgrad", [loss, filter], padding, stride, dilation)

    def conv_wgrad(
        self, image: tensor, loss: tensor, padding: list[int], stride: list[int], dilation: list[int], name: str = ""
    ) -> tensor:
        return self._convolution("wgrad", [image, loss], padding, stride, dilation)

    def bias(self, input: tensor, bias: tensor, name: str = "") -> tensor:  # noqa: A002
        return self._add("bias", [input, bias])

    def relu(self, input: tensor, negative_slope: float | None = None) -> tensor:  # noqa: A002
        return self._add("relu", [input], slope=negative_slope)

    def validate(self) -> None:
        self._expect("described")
        if not self._steps or self._io not in _TYPES or self._compute not in (data_type.FLOAT, data_type.DOUBLE):
            raise ValueError("the graph has no operation, or no types")
        output = self._steps[-1][2]
        for step, inputs, target, _ in self._steps:
            if target.is_virtual is (target is output):
                raise RuntimeError("the last tensor, and no other, is to be an output")
            if step in ("dgrad", "wgrad") and not target.dim:
                raise ValueError(f"output dimension inferencing is not possible for {step}")
            for given in inputs:
                if not given.is_virtual and len(given.dim) != len(given.stride):
                    raise RuntimeError(f"dims and strides of {given.name} differ in number")
        if not output.dim or len(output.stride) != len(output.dim):
            raise ValueError("an output needs its sizes and strides")
        uids = [t.uid for t in self._arrays()]
        if -1 in uids or len(set(uids)) != len(uids):
            raise RuntimeError(f"uids {uids} are not there or not different")
        self._check_sizes()
        self._stage = "validated"

    def build_operation_graph(self) -> None:
        self._expect("validated")
        self._stage = "built"

    def create_execution_plans(self, modes: list[heur_mode]) -> None:
        self._expect("built")
        problem = self._problem()
        if problem is not None:
            raise cudnnGraphNotSupportedError(f"No valid engine configs for {problem}")
        tensor_core, nondeterministic = {numerical_note.TENSOR_CORE}, {numerical_note.NONDETERMINISTIC}
        first = self._steps[0][0]
        # As cuDNN 9.28 does: images of three channels in 16 bits, and products in groups that end in a bias in float32.
        if heur_mode.A in modes and self._is_of_few_channels():
            self._plans.append(_Plan("eng28_k2=5", 0, set()))
        if heur_mode.A in modes and not self._is_refused_by_heuristics():
            self._plans += [_Plan("eng50_k2=1", _WORKSPACE_BYTES, tensor_core), _Plan("eng51_k2=3", 0, tensor_core)]
            if first != "fprop":
                self._plans.append(_Plan("eng2_k2=0", 0, nondeterministic))
            self._plans.append(_Plan("eng1", 64, set()))
        if heur_mode.FALLBACK in modes:
            self._plans.append(_Plan("eng0", 0, set()))
        if not self._plans:
            raise cudnnGraphNotSupportedError("No valid engine configs")
        self._stage = "planned"

    def select_numeric_notes(self, notes: list[numerical_note]) -> None:
        self._expect("planned")
        for plan in self._plans:
            plan.is_barred |= not set(notes) <= plan.notes

    def deselect_numeric_notes(self, notes: list[numerical_note]) -> None:
        self._expect("planned")
        for plan in self._plans:
            plan.is_barred |= bool(plan.notes & set(notes))

    def get_execution_plan_count(self) -> int:
        return len(self._plans)

    def get_plan_name_at_index(self, index: int) -> str:
        return self._plans[index].name

    def get_workspace_size_plan_at_index(self, index: int) -> int:
        return self._plans[index].workspace if self._plans[index].is_built else 0

    def build_plan_at_index(self, index: int) -> None:
        self._expect("planned")
        if self._plans[index].is_barred:
            raise cudnnGraphNotSupportedError("Deselecting execution plan")
        self._plans[index].is_built = True

    def execute_plan_at_index(
        self, tensor_to_device_buffer: dict[int, int], workspace: int, index: int, handle: int | None = None
    ) -> None:
        plan = self._plans[index]
        if not plan.is_built or handle not in streams:
            raise RuntimeError("the plan is not built, or there is no handle")
        arrays = {t.uid: t for t in self._arrays()}
        if set(tensor_to_device_buffer) != set(arrays):
            raise ValueError(f"arrays {sorted(tensor_to_device_buffer)} were given for {sorted(arrays)}")
        pack = dict(tensor_to_device_buffer)
        for uid, address in pack.items():
            if type(address) is not int or address % _ALIGNMENT:
                raise RuntimeError(f"CUDNN_STATUS_EXECUTION_FAILED: array {uid} is off its boundary at {address!r}")
        if plan.workspace and not workspace:
            raise RuntimeError("CUDNN_STATUS_BAD_PARAM: no workspace")
        used = [address for address in (*pack.values(), workspace) if address]
        blocks = [block for block in map(block_at, used) if block is not None]
        simulated.counts["cudnn"] += 1
        simulated.record(lambda: self._run(plan, pack, workspace), stream=streams[handle], blocks=blocks)

    def _convolution(
        self, kind: str, inputs: list[tensor], padding: list[int], stride: list[int], dilation: list[int]
    ) -> tensor:
        if self._steps:
            raise NotImplementedError("one convolution, first of all")
        return self._add(kind, inputs, window=Window(*map(integers, (padding, stride, dilation))))

    def _add(self, kind: str, inputs: list[tensor], **more: Any) -> tensor:
        self._expect("described")
        for given in inputs:
            if not isinstance(given, tensor):
                raise TypeError(f"{kind}(): incompatible function arguments")
            if given.kind is data_type.NOT_SET and not given.is_virtual:
                given.kind = self._io
        output = tensor([], [], data_type.NOT_SET, "", -1, True)
        self._steps.append((kind, inputs, output, more))
        return output

    def _expect(self, stage: str) -> None:
        if self._stage != stage:
            raise RuntimeError(f"the graph is {self._stage}, not {stage}")

    def _arrays(self) -> list[tensor]:
        """The tensors that are arrays: what is read, and the output last."""
        read = [given for _, inputs, _, _ in self._steps for given in inputs if not given.is_virtual]
        return [*read, self._steps[-1][2]]

    def _check_sizes(self) -> None:
        kind, (first, second), _, more = self._steps[0]
        output, window = self._steps[-1][2].dim, more["window"]
        x, w, y = {
            "fprop": (first.dim, second.dim, output),
            "dgrad": (output, second.dim, first.dim),
            "wgrad": (first.dim, output, second.dim),
        }[kind]
        axes = len(x) - 2
        if axes not in (2, 3) or len(w) != len(x) or any(len(v) != axes for v in vars(window).values()):
            raise RuntimeError(f"a convolution over {axes} axes, kernels {w}, window {vars(window)}")
        if x[1] % w[1] or w[0] % (x[1] // w[1]):
            raise RuntimeError(f"{x[1]} channels for kernels {w}")
        if y != [x[0], w[0], *window.output(tuple(x[2:]), tuple(w[2:]))] or min(*x, *w, *y) < 1:
            raise RuntimeError(f"bottom {x}, kernels {w} and top {y} do not fit together")
        for step, inputs, _, _ in self._steps[1:]:
            if step == "bias" and inputs[1].dim != [1, y[1], *([1] * axes)]:
                raise RuntimeError(f"a bias {inputs[1].dim} for {y}")

    def _problem(self) -> str | None:
        """Why there is no engine."""
        steps, arrays = [step for step, _, _, _ in self._steps], self._arrays()
        is_plain, is_last = (all(t.stride == packed(t.dim, last=last) for t in arrays) for last in (False, True))
        if not (is_plain or is_last):
            return "arrays of several orders"
        if any(t.kind is not self._io for t in arrays):
            return "arrays of several types"
        if steps not in (
            ["fprop"],
            ["fprop", "bias"],
            ["fprop", "bias", "relu"],
            ["fprop", "relu"],
            ["dgrad"],
            ["wgrad"],
        ):
            return " ".join(steps)
        slope = self._steps[-1][3].get("slope")
        if not is_last and (steps == ["fprop", "relu"] or slope):
            return f"{' '.join(steps)} with channels second"
        if self._io is data_type.DOUBLE and len(steps) > 1:
            return f"{' '.join(steps)} of doubles"
        return next((reason for refuse in refusals for reason in [refuse(steps)] if reason), None)

    def _is_of_few_channels(self) -> bool:
        kind, (first, _), _, more = self._steps[0]
        return (
            kind == "fprop" and first.dim[1] == 3 and max(more["window"].stride) > 2 and self._io is not data_type.FLOAT
        )

    def _is_refused_by_heuristics(self) -> bool:
        _, (first, second), _, _ = self._steps[0]
        return self._io is data_type.FLOAT and len(self._steps) > 1 and first.dim[1] > second.dim[1] > 1

    @np.errstate(all="ignore")  # a GPU says nothing of numbers that are not finite
    def _run(self, plan: _Plan, pack: dict[int, int], workspace: int) -> None:
        delay = delays_s.get(plan.name, 0.0)
        if delay:
            time.sleep(delay)
        if plan.workspace:
            simulated.array_at(workspace, [plan.workspace], np.uint8)[...] = 0xFF
        wide = np.float64 if self._io is data_type.DOUBLE else np.float32

        def view(t: tensor) -> Any:
            kind = numpy_type(t.kind)
            return simulated.array_at(pack[t.uid], t.dim, kind, [step * kind.itemsize for step in t.stride])

        def read(t: tensor) -> Any:
            values = view(t).astype(wide)
            tf32 = self._io is data_type.FLOAT and numerical_note.TENSOR_CORE in plan.notes
            return rounded_to_tf32(values) if tf32 else values

        kind, (first, second), _, more = self._steps[0]
        output, window = self._steps[-1][2], more["window"]
        if kind == "fprop":
            values = fprop(read(first), read(second), window)
        else:
            values = (dgrad if kind == "dgrad" else wgrad)(read(first), read(second), tuple(output.dim), window)
        if numerical_note.NONDETERMINISTIC in plan.notes:
            values *= 1 + np.random.default_rng().integers(-2, 3, values.shape) * wide(1e-7)
        for step, inputs, _, more in self._steps[1:]:
            if step == "bias":
                values = values + view(inputs[1]).astype(wide)
            else:
                values = np.where(values > 0, values, (more["slope"] or 0.0) * values)
        view(output)[...] = values.astype(numpy_type(output.kind))
