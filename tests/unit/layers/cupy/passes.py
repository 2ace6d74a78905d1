"""A layer on the simulated GPU and the plain one in float64, given the same values in any form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends import create_backend
from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.cupy.forms import Form
from paratrain.blob import Memory, SyncedMemory
from paratrain.dtypes import dtype_named
from paratrain.layers.base import Clock, LayerContext
from paratrain.proto import TRAIN
from tests.gradient_check import LayerRun, set_up_layer

__all__ = ["FORMS", "Passes", "check_recording", "form_of", "lay", "run_passes", "tolerance"]

Array = npt.NDArray[Any]

FORMS = ("float32", "float32 last", "bfloat16 last", "float16")
"""Types of values, and those with channels last."""


def form_of(name: str, shape: Sequence[int]) -> Form:
    """The form of FORMS for a blob of ``shape``."""
    dtype, _, last = name.partition(" ")
    return Form.of(tuple(shape), dtype_named(dtype), channels_last=bool(last))


def tolerance(name: str) -> float:
    """How far two results may be apart, relative to values of about 1, when they are stored so."""
    return {"float32": 2e-6, "float16": 2e-3, "bfloat16": 2e-2}[name.split()[0]]


def lay(backend: CupyBackend, memory: Memory, values: Array, form: Form) -> None:
    """Write values to a memory as a layer would leave them in ``form``."""
    ordered = np.moveaxis(values, 1, -1) if form.channels_last else values
    backend.forms.write(memory, form).set(np.ascontiguousarray(ordered).reshape(-1).astype(form.dtype))


@dataclass
class Passes:
    """A layer on the GPU after forward and backward, the form it was given, and what the plain layer made of the same."""

    run: LayerRun
    form: Form
    reference: LayerRun

    def check(self, bottoms: Sequence[int] = (0,), rtol: float = 1.0, name: str = "float32") -> None:
        """Compare all tops, the gradients of the bottoms named, and those of parameters."""
        limit = tolerance(name) * rtol
        for top, expected in zip(self.run.tops, self.reference.tops, strict=True):
            np.testing.assert_allclose(top.read_data(None), expected.data, rtol=limit, atol=limit)
        for index in bottoms:
            expected_diff = self.reference.bottoms[index].diff
            np.testing.assert_allclose(self.run.bottoms[index].read_diff(None), expected_diff, rtol=limit, atol=limit)
        for blob, plain in zip(self.run.layer.blobs, self.reference.layer.blobs, strict=True):
            np.testing.assert_allclose(blob.diff, plain.diff, rtol=limit, atol=limit * np.abs(plain.diff).max())


def run_passes(
    layer: str,
    bottoms: Sequence[Array],
    name: str = "float32",
    *,
    backend: CupyBackend | None = None,
    in_place: bool = False,
    top_count: int | None = None,
    top_diff: Array | None = None,
    top_form: str | None = None,
    propagate: Sequence[bool] | None = None,
    phase: Any = TRAIN,
    weight: float | None = None,
) -> Passes:
    """Run forward and backward on the GPU, bottom 0 given in the form ``name``, and on numpy in float64.

    ``top_diff`` (random normal unless given; a loss has its ``weight``) comes in the form ``top_form``, or in ``name``.
    """
    backend = backend or CupyBackend()
    rng = np.random.default_rng(7)
    form = form_of(name, bottoms[0].shape)
    # Both are given values that can be stored.
    given = [np.asarray(bottoms[0]).astype(form.dtype).astype(np.float64), *bottoms[1:]]
    runs = []
    for context in (
        LayerContext(backend=backend, phase=phase, seed=5, clock=Clock(3)),
        LayerContext(backend=create_backend("numpy"), phase=phase, dtype=np.float64, seed=5, clock=Clock(3)),
    ):
        runs.append(set_up_layer(layer, given, context=context, in_place=in_place, top_count=top_count))
    gpu, plain = runs
    for blob, other in zip(gpu.layer.blobs, plain.layer.blobs, strict=True):
        other.data[...] = blob.read_data(None)
    lay(backend, gpu.bottoms[0].data_memory, given[0], form)
    gpu.layer.forward(gpu.bottoms, gpu.tops)
    plain.layer.forward(plain.bottoms, plain.tops)
    down = [index == 0 for index in range(len(bottoms))] if propagate is None else list(propagate)
    if gpu.layer.is_loss:
        if weight is not None:
            for run in runs:
                run.tops[0].diff[...] = weight
    else:
        diff_form = form_of(top_form or name, gpu.tops[0].shape)
        diff = rng.normal(size=gpu.tops[0].shape) if top_diff is None else top_diff
        diff = diff.astype(diff_form.dtype).astype(np.float64)
        lay(backend, gpu.tops[0].diff_memory, diff, diff_form)
        plain.tops[0].diff[...] = diff
    if any(down):
        for run in runs:
            for index, wanted in enumerate(down):
                if wanted and run.bottoms[index] is not run.tops[0]:
                    run.bottoms[index].diff[...] = np.nan
            run.layer.backward(run.tops, down, run.bottoms)
    return Passes(gpu, form, plain)


def check_recording(
    layer: str,
    batches: Sequence[Sequence[Array]],
    name: str = "float32",
    *,
    backend: CupyBackend,
    in_place: bool = False,
    top_count: int | None = None,
    top_form: str | None = None,
) -> None:
    """Run forward and backward on each batch, once kernel by kernel and once by a recording of the first that is replayed: all
    results must have the same bits. A recording is refused where a pass allocates memory or waits.
    """
    results = [
        _results(layer, batches, (name, top_form or name), backend, in_place, top_count, is_recorded=is_recorded)
        for is_recorded in (False, True)
    ]
    for number, (eager, replayed) in enumerate(zip(*results, strict=True)):
        assert eager.keys() == replayed.keys()
        for what, expected in eager.items():
            assert np.array_equal(expected, replayed[what]), f"batch {number}: {what}"
    for what in results[0][0]:
        if what.startswith("diff of bottom 0"):
            assert not np.array_equal(results[0][0][what], results[0][1][what])


def _results(
    layer: str,
    batches: Sequence[Sequence[Array]],
    names: tuple[str, str],
    backend: CupyBackend,
    in_place: bool,
    top_count: int | None,
    *,
    is_recorded: bool,
) -> list[dict[str, Array]]:
    """The bits of what is written in each batch."""
    context = LayerContext(backend=backend, phase=TRAIN, seed=5, clock=Clock())
    run = set_up_layer(layer, batches[0], context=context, in_place=in_place, top_count=top_count)
    bottoms, tops, made = run.bottoms, run.tops, run.layer
    form, top_form = form_of(names[0], bottoms[0].shape), form_of(names[1], tops[0].shape)
    down = [index == 0 for index in range(len(bottoms))]
    top_diff = np.random.default_rng(1).normal(size=tops[0].shape)

    def give(batch: Sequence[Array]) -> None:
        lay(backend, bottoms[0].data_memory, batch[0], form)
        for blob, values in zip(bottoms[1:], batch[1:], strict=True):
            lay(backend, blob.data_memory, values, form_of("float32", blob.shape))
        if made.is_loss:
            tops[0].write_diff(backend.device).fill(1.5)
        elif made.allow_force_backward(0):
            lay(backend, tops[0].diff_memory, top_diff, top_form)
        for blob in made.blobs:
            blob.write_diff(backend.device).fill(0)

    def compute() -> None:
        made.forward(bottoms, tops)
        if made.allow_force_backward(0):
            made.backward(tops, down, bottoms)

    def raw(memory: Memory, shape: tuple[int, ...]) -> Array:
        array: Array = backend.forms.write(memory, backend.forms.found(memory, shape)).get()
        return array.view(np.uint8)

    recording, written = None, []
    if is_recorded:
        for _ in range(2):  # the second time everything has its buffers
            give(batches[0])
            compute()
        assert made.is_capturable
        give(batches[0])
        recording = backend.record(compute)
        assert recording is not None, "something was allocated, or waited for"
        blocks = [memory for blob in (*bottoms, *tops) for memory in (blob.data_memory, blob.diff_memory)]
        written = [(memory, memory.places) for memory in blocks if isinstance(memory, SyncedMemory)]
    results = []
    for number, batch in enumerate(batches):
        context.clock.iteration = number
        give(batch)
        if recording is None:
            compute()
        else:
            made.before_replay()
            recording.replay()
            for memory, places in written:
                memory.note_places(places)
        found = {f"top {index}": raw(top.data_memory, top.shape) for index, top in enumerate(tops)}
        if made.allow_force_backward(0):
            found["diff of bottom 0"] = raw(bottoms[0].diff_memory, bottoms[0].shape)
        found |= {
            f"diff of parameter {index}": raw(blob.diff_memory, blob.shape) for index, blob in enumerate(made.blobs)
        }
        results.append(found)
    return results
