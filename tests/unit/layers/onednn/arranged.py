"""Running one layer on oneDNN and on the numpy backend, with blobs in blocks of channels, with the channels last, and mixed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.backends import create_backend
from paratrain.blob import Memory, SyncedMemory
from paratrain.layers.base import LayerContext
from paratrain.proto import TRAIN
from tests.gradient_check import LayerRun, set_up_layer

__all__ = ["LAYOUTS", "PADDED", "SHAPE", "arrange", "images", "run_both", "stays_arranged"]

Array = npt.NDArray[Any]
LAYOUTS = ["blocked", "last", "plain", "mixed"]


def arrange(memory: Memory, shape: tuple[int, ...], layout_name: str, backend: Any) -> None:
    """Move the values of a memory into a layout of the backend's type: the plain array is out of date then."""
    from paratrain.backends.onednn.arranged import ArrangedArray
    from paratrain.backends.onednn.layout import Layout

    assert isinstance(memory, SyncedMemory)
    if layout_name == "plain":
        return
    found = backend.library
    layout = Layout.blocked(found, shape, 16) if layout_name == "blocked" else Layout.channels_last(found, shape)
    layout = None if layout is None else layout.cast(backend.arranger.dtype)
    assert layout is not None
    arranged = ArrangedArray(backend.arranger, layout)
    backend.arranger.reorder(memory.host().copy(), backend.arranger.plain(shape), arranged.array, layout)
    memory.arrange(arranged)
    memory._host = np.full(memory.count, np.nan, memory.dtype)  # whoever reads it without asking is found out


def layout_at(layout_name: str, index: int) -> str:
    return ("blocked", "last", "plain")[index % 3] if layout_name == "mixed" else layout_name


def run_both(
    layer: str,
    bottoms: Sequence[Array],
    layout_name: str,
    *,
    in_place: bool = False,
    propagate: Sequence[bool] | None = None,
    phase: Any = TRAIN,
    top_count: int | None = None,
    passes: int = 2,
    precision: str = "float32",
) -> LayerRun:
    """Compare two forward and backward passes of a layer on both backends; return the run on oneDNN. With the precision
    "bfloat16" what is arranged is that, and results may differ by 1e-2 of the largest.
    """
    propagate = [True] * len(bottoms) if propagate is None else list(propagate)
    backends = [create_backend("numpy"), create_backend("onednn", precision)]
    close = functools.partial(_close, tolerance=2e-5 if precision == "float32" else 1e-2)
    runs = [
        set_up_layer(
            layer, bottoms, in_place=in_place, top_count=top_count,
            context=LayerContext(backend=backend, phase=phase, dtype=np.float32, seed=3),
        )
        for backend in backends
    ]  # fmt: skip
    random = np.random.default_rng(5)
    for blobs in zip(*[run.layer.blobs for run in runs], strict=True):
        values, diffs = random.uniform(0.5, 1.5, blobs[0].shape), random.normal(size=blobs[0].shape)
        for blob in blobs:
            blob.data[...], blob.diff[...] = values, diffs
    for number in range(passes):
        for index, values in enumerate(bottoms):
            for run, backend in zip(runs, backends, strict=True):
                run.bottoms[index].data[...] = values * (1 + number)
                if backend.name == "onednn":
                    arrange(run.bottoms[index].data_memory, values.shape, layout_at(layout_name, index), backend)
        for run in runs:
            run.layer.forward(run.bottoms, run.tops)
        for index, tops in enumerate(zip(*[run.tops for run in runs], strict=True)):
            close(tops[1].read_data(None), tops[0].read_data(None), f"top {index}")
            diff = random.normal(size=tops[0].shape)
            for top, backend in zip(tops, backends, strict=True):
                top.diff[...] = diff
                if backend.name == "onednn":
                    arrange(top.diff_memory, top.shape, layout_at(layout_name, index + number), backend)
        for run in runs:
            for bottom, down in zip(run.bottoms, propagate, strict=True):
                if not down and not in_place:
                    bottom.diff[...] = 7
            run.layer.backward(run.tops, propagate, run.bottoms)
        for index, blobs in enumerate(zip(*[run.bottoms for run in runs], strict=True)):
            if propagate[index] or not in_place:
                close(blobs[1].read_diff(None), blobs[0].read_diff(None), f"bottom {index}")
        for index, blobs in enumerate(zip(*[run.layer.blobs for run in runs], strict=True)):
            close(blobs[1].data, blobs[0].data, f"values of blob {index}")
            close(blobs[1].diff, blobs[0].diff, f"gradient of blob {index}")
    return runs[1]


def _close(found: Array, expected: Array, what: str, *, tolerance: float) -> None:
    largest = max(float(np.abs(expected).max()), 1e-3)
    np.testing.assert_allclose(found / largest, expected / largest, rtol=0, atol=tolerance, err_msg=what)


def stays_arranged(run: LayerRun) -> bool:
    """Whether what the layer has written lies arranged: nothing was computed on plain arrays."""
    written = [blob.data_memory for blob in run.tops] + [blob.diff_memory for blob in run.bottoms]
    return all(memory.arrangement is not None for memory in written)


def images(*shapes: tuple[int, ...], seed: int = 1) -> list[Array]:
    random = np.random.default_rng(seed)
    return [random.normal(1, 2, size=shape).astype(np.float32) for shape in shapes]


SHAPE, PADDED = (2, 32, 5, 3), (3, 20, 4, 3)
