"""Kernels at the end of arrays of nearly 2^31 values, the most that a blob has: no index may leave 32 bits, or the array.

The last block of each launch runs, on memory that the system gives where something is written. Only the simulated GPU with its
checks sees what is wrong: SIMULATED_GPU_CHECKS=1, as in scripts/soak/kernel_orders.
"""

from __future__ import annotations

import itertools
import mmap
import os
from collections.abc import Callable
from typing import Any

import ml_dtypes  # noqa: F401  # gives numpy the name bfloat16
import numpy as np
import numpy.typing as npt
import pytest

from paratrain.backends.base import ConvolutionGeometry, LocalResponseGeometry, PoolingGeometry, PoolMethod
from paratrain.backends.cupy import modules
from paratrain.backends.cupy.bias import Bias
from paratrain.backends.cupy.columns import Columns, exchange_columns
from paratrain.backends.cupy.device import CudaDevice
from paratrain.backends.cupy.eltwise import Eltwise
from paratrain.backends.cupy.forms import Form, Forms
from paratrain.backends.cupy.im2col import Windows
from paratrain.backends.cupy.lrn import CupyLocalResponseNormalization
from paratrain.backends.cupy.normalization import Factors, Normalization
from paratrain.backends.cupy.pooling import CupyPooling
from paratrain.backends.cupy.workspace import Workspace
from tests.simulated_gpu_path import IS_REAL

pytestmark = pytest.mark.skipif(
    IS_REAL or os.environ.get("SIMULATED_GPU_CHECKS") != "1", reason="looks for indices that a GPU does not tell of"
)

MOST = 2**31 - 1  # a prime
ODD = (1, 331, 6487866)  # MOST - 1 values
WHOLE = (1, 56, 38347922)  # MOST - 15, in whole packs either way
GUARD = 4096
MAP_NORESERVE = 0x4000  # Linux's; the module mmap has it from Python 3.13 on


@pytest.fixture
def empty(simulated_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes arrays of zeros that take no memory."""
    from simulated import memory, watching

    def made(count: int, dtype: npt.DTypeLike = np.float32) -> Any:
        size = count * np.dtype(dtype).itemsize
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        pages = mmap.mmap(-1, 2 * GUARD + size + 511 & -512, flags=flags)
        pages.madvise(mmap.MADV_NOHUGEPAGE)
        raw = np.frombuffer(pages, np.uint8)
        block = memory.Block(raw, GUARD, size, 0)
        block.mend()
        memory.register(block)
        blocks.append(block)
        pointer = simulated_gpu.cuda.MemoryPointer(simulated_gpu.cuda.UnownedMemory(block.address, size, block), 0)
        return simulated_gpu.ndarray((count,), dtype, memptr=pointer)

    blocks: list[Any] = []
    monkeypatch.setattr(CudaDevice, "empty", lambda _, count, dtype: made(count, dtype))
    monkeypatch.setattr(modules, "_BLOCKS_PER_PROCESSOR", 132 * 32 // 4)  # of an H100; the simulated one has 4
    monkeypatch.setattr(watching, "runs_last_only", True)
    yield made
    for block in blocks:
        memory.forget(block)


@pytest.fixture
def forms(simulated_gpu: Any, empty: Any) -> Forms:
    return Forms(CudaDevice())


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_value_by_value(forms: Forms, empty: Any, name: str) -> None:
    x, y = empty(MOST, name), empty(MOST, name)
    for shift in (0, 1):
        one, other, count = x[shift:], y[shift:], MOST - shift
        forms.kernels("activation", name).launch("relu_forward", count, one, other, 0.0, per_thread=4)
        forms.kernels("activation", name).launch("relu_backward", count, one, other, one, 0.0, per_thread=4)
        Eltwise(forms).sum(Form.of((count,), name), [one, other], other)
    key = empty(1, np.uint64)
    for shape, last in itertools.product((ODD, WHOLE), (False, True)):
        form = Form.of(shape, name, channels_last=last)
        sizes = shape[1] * shape[2], 3, 2, *shape[1:], last
        forms.kernels("dropout", name).launch("dropout", form.count, x, y, key, 0.5, 2.0, *sizes, per_thread=4)
        Eltwise(forms).sum(form, [x[: form.count], y[: form.count]], y[: form.count])
        slopes = empty(shape[1])
        forms.kernels("prelu", name).launch("prelu_forward", form.count, x, y, None, slopes, *shape[1:], last, False)
        Bias(forms).add(y[: form.count], form, slopes, 0.0)
        bias_diff = empty(shape[1])
        Bias(forms).backward(y[: form.count], form, bias_diff, relu=(x[: form.count], y[: form.count], 0.0))
        plain = Form.of(shape, np.float32)
        if form == plain:
            continue  # a plain copy
        forms.convert(x[: form.count], form, empty(form.count), plain)
        forms.convert(empty(form.count), plain, x[: form.count], form)


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", [ODD, WHOLE])
def test_layers(forms: Forms, empty: Any, shape: tuple[int, ...], last: bool, name: str) -> None:
    form = Form.of(shape, name, channels_last=last)
    x, y = empty(form.count, name), empty(form.count, name)
    for beta in (0.75, 0.5):
        lrn = CupyLocalResponseNormalization(forms, LocalResponseGeometry(shape, 5, 1.0, beta, 1.0), name)
        lrn.normalize(x, form, y)
        lrn.gradient(x, y, form, y)
    workspace = Workspace(forms.device)
    kernels = Normalization(forms, workspace, form)
    means = [empty(shape[1]) for _ in range(7)]
    kernels.moments(x, 1e-5, 0.9, means[0], means[1], (means[2], means[3], means[4]))
    factors = Factors(means[0], means[1], means[2], means[3], rectifies=True)
    kernels.forward(x, y, factors, kept=x)
    kernels.sums(x, y, factors, means=means[4], slopes=means[5])
    kernels.backward(x, y, y, factors, means[4], means[5])


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("method", [PoolMethod.MAX, PoolMethod.AVE])
def test_pooling(forms: Forms, empty: Any, method: PoolMethod, last: bool) -> None:
    shape = (2, 16, 8191, 8192)  # 2^31 - 2^18 values
    for kernel, output in ((3, (8191, 8192)), (2, (4096, 4096))):
        stride = 1 if kernel == 3 else 2
        geometry = PoolingGeometry(
            method, *shape[:2], shape[2:], (kernel, kernel), (stride, stride), (kernel // 3, kernel // 3), output
        )
        form = Form.of(shape, "bfloat16", channels_last=last)
        x, y = empty(form.count, "bfloat16"), empty(2 * 16 * output[0] * output[1], "bfloat16")
        pooling = CupyPooling(forms, geometry, "bfloat16")
        pooling.pool(x, form, y)
        pooling.unpool(y, form, x)


def test_windows_and_columns(forms: Forms, empty: Any) -> None:
    sizes = (16384, 16383)
    geometry = ConvolutionGeometry(8, 1, sizes, 1, (1, 1), (1, 1), (0, 0), (1, 1))
    windows = Windows(forms, geometry, np.float32)
    x, columns = empty(8 * sizes[0] * sizes[1]), empty(8 * sizes[0] * sizes[1])
    for images_first in (False, True):
        windows.unfold(8, x, columns, images_first=images_first)
        windows.fold(8, columns, x, images_first=images_first)
    whole = empty(MOST - 1, np.float16)
    parts = [empty(6487866 * part, np.float16) for part in (330, 1)]
    for shapes, last in (([(6487866, 330, 1), (6487866, 1, 1)], False), ([(1, 330, 6487866), (1, 1, 6487866)], True)):
        for to_whole in (False, True):
            exchange_columns(forms, whole, parts, Columns(shapes, 1, channels_last=last), to_whole=to_whole)


def test_updates_and_sums(forms: Forms, empty: Any) -> None:
    kernels, numbers, stops = forms.kernels("updates", np.float32), empty(64), empty(1, np.int32)
    stops[...] = MOST
    arrays = [empty(MOST) for _ in range(3)]
    for start, stop in ((0, MOST), (MOST - 9, MOST), (5, MOST - 2)):
        groups = -(-stop // 4) - start // 4
        more = (arrays[0], arrays[1], None, arrays[2], None, arrays[1], stops, 1, numbers, False, False, True, True)
        kernels.launch("update_sgd", groups, start, stop, *more)
        bounds = empty(2, np.int32)
        bounds[...] = np.int32(stop)
        bounds[0] = max(start, stop - 8192)
        kernels.launch_blocks("sum_pieces", 1, 256, 1, bounds, arrays[0], arrays[1], empty(1, np.float64), True)


@pytest.mark.parametrize(
    ("positions", "classes", "inner"), [(ODD[2], 331, 1), (ODD[2], 331, ODD[2]), (32767, 65536, 1)]
)
def test_scores(forms: Forms, empty: Any, positions: int, classes: int, inner: int) -> None:
    count, way = positions * classes, "rows" if inner == 1 else "positions"
    blocks = positions if inner == 1 else -(-positions // 256)
    x, p, labels, fault, sums = empty(count), empty(count), empty(positions), empty(1, np.uint64), empty(2 * positions)
    loss, normalizer, ticket = empty(1), empty(1), empty(1, np.uint32)
    kernels = forms.kernels("softmax", np.float32)
    kernels.launch_blocks(f"softmax_{way}", blocks, 256, positions, x, p, classes, inner)
    kernels.launch_blocks(f"softmax_backward_{way}", blocks, 256, positions, p, x, x, classes, inner)
    given = labels, 0, False
    arguments = (positions, x, p, classes, inner, *given, fault, sums, sums[positions:], 1.0, loss, normalizer, ticket)
    kernels.launch_blocks(f"softmax_loss_{way}", blocks, 256, *arguments)
    kernels.launch("softmax_loss_backward", count, p, x, classes, inner, *given, loss, normalizer)


def test_losses(forms: Forms, empty: Any) -> None:
    kernels, classes, runs = forms.kernels("losses", np.float32), 331, -(-MOST // 1024)
    x, margins, labels = empty(MOST - 1), empty(MOST - 1), empty(ODD[2])
    loss, fault = empty(1), empty(1, np.uint64)
    tail = (1.0, loss, empty(runs), empty(1, np.uint32))
    kernels.launch_blocks("euclidean_forward", 4096, 256, MOST - 1, x, margins, margins, *tail)
    kernels.launch_blocks("hinge_forward", 4096, 256, MOST - 1, x, margins, classes, labels, fault, False, *tail)
    kernels.launch("hinge_backward", MOST - 1, margins, x, classes, labels, True, 2.0, loss)
