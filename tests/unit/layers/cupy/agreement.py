"""Layers of several bottoms and tops on the simulated GPU, in any mixture of forms, against the plain ones in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends import create_backend
from paratrain.backends.cupy.backend import CupyBackend
from paratrain.layers.base import LayerContext
from paratrain.proto import TRAIN
from tests.gradient_check import LayerRun, set_up_layer
from tests.unit.layers.cupy.passes import form_of, lay, tolerance

__all__ = ["MIXTURES", "agree", "as_stored"]

Array = npt.NDArray[Any]

MIXTURES = (
    ("float32",),
    ("float32 last",),
    ("bfloat16 last",),
    ("float16",),
    ("bfloat16 last", "float32", "bfloat16"),
    ("float32", "float32 last", "float32 last"),
)
"""The forms of bottoms, or gradients of tops, that come in turn."""


def as_stored(values: Array, names: Sequence[str]) -> Array:
    """The values rounded to the narrowest of the types, so that no conversion changes them."""
    for name in names:
        values = values.astype(form_of(name, (1,)).dtype).astype(np.float64)
    return values


def agree(
    layer: str,
    bottoms: Sequence[Array],
    names: Sequence[str] = ("float32",),
    *,
    top_names: Sequence[str] | None = None,
    top_count: int | None = None,
    propagate: Sequence[bool] | None = None,
    phase: Any = TRAIN,
    is_capturable: bool = True,
    factor: float = 1.0,
) -> LayerRun:
    """Run forward and backward twice, with other values, compare what comes out, and then record both and run that: it must
    give the same bits. ``factor`` times :func:`tolerance` of the largest value is the difference allowed.
    """
    backend = CupyBackend()
    top_names = names if top_names is None else top_names
    down = [True] * len(bottoms) if propagate is None else list(propagate)
    bottoms = [as_stored(values, names) for values in bottoms]
    gpu, plain = (
        set_up_layer(layer, bottoms, context=context, top_count=top_count)
        for context in (
            LayerContext(backend=backend, phase=phase, seed=3),
            LayerContext(backend=create_backend("numpy"), phase=phase, dtype=np.float64, seed=3),
        )
    )
    limit = factor * max(tolerance(name) for name in (*names, *top_names))
    for number in range(2):
        random = np.random.default_rng(number)
        for index, values in enumerate(bottoms):
            values = values * (1, -2)[number]
            lay(backend, gpu.bottoms[index].data_memory, values, form_of(names[index % len(names)], values.shape))
            plain.bottoms[index].data[...] = values
        for run in (gpu, plain):
            run.layer.forward(run.bottoms, run.tops)
        for index, (top, expected) in enumerate(zip(gpu.tops, plain.tops, strict=True)):
            name = top_names[(index + number) % len(top_names)]
            diff = as_stored(random.normal(size=top.shape), (*names, name))
            lay(backend, top.diff_memory, diff, form_of(name, top.shape))
            expected.diff[...] = diff
        for run in (gpu, plain):
            for bottom, wanted in zip(run.bottoms, down, strict=True):
                bottom.diff[...] = np.nan if wanted else 7
            run.layer.backward(run.tops, down, run.bottoms)
        for kind, ours, theirs in (("top", gpu.tops, plain.tops), ("bottom", gpu.bottoms, plain.bottoms)):
            for index, (blob, expected) in enumerate(zip(ours, theirs, strict=True)):
                found, wanted_values = (
                    (blob.read_data(None), expected.read_data(None))
                    if kind == "top"
                    else (blob.read_diff(None), expected.read_diff(None))
                )
                largest = max(float(np.abs(wanted_values).max(initial=0)), 1e-3)
                message = f"{kind} {index} of pass {number}: {layer} {names} {top_names}"
                np.testing.assert_allclose(
                    found / largest, wanted_values / largest, rtol=0, atol=limit, err_msg=message
                )
    assert gpu.layer.is_capturable == is_capturable
    if is_capturable:
        _check_recording(backend, gpu, down)
    return gpu


def _check_recording(backend: CupyBackend, run: LayerRun, down: Sequence[bool]) -> None:
    def both() -> None:
        run.layer.forward(run.bottoms, run.tops)
        run.layer.backward(run.tops, down, run.bottoms)

    def results() -> list[Array]:
        memories = [top.data_memory for top in run.tops] + [bottom.diff_memory for bottom in run.bottoms]
        return [memory.host().copy() for memory in memories]

    both()  # what reading the results has brought to the host comes back, and has its buffers now
    eager = results()
    both()
    recording = backend.record(both)
    assert recording is not None, "something was allocated, or read, while it was recorded"
    for memory in [top.data_memory for top in run.tops] + [bottom.diff_memory for bottom in run.bottoms]:
        arrangement = memory.arrangement
        if arrangement is not None:
            arrangement.array.fill(3)
    recording.replay()
    for index, (first, second) in enumerate(zip(eager, results(), strict=True)):
        assert first.tobytes() == second.tobytes(), f"array {index} of a recorded pass differs"
