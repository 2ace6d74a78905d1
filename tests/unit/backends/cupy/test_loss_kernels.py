"""Kernels that sum over a grid, in every type of values and with any number of blocks, against closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.backends.cupy.modules import KernelModule
from paratrain.dtypes import dtype_named

Array = npt.NDArray[Any]


def wide(name: str) -> Any:
    return np.float64 if name == "float64" else np.float32


@pytest.mark.parametrize("name", ["float64", "bfloat16"])
@pytest.mark.parametrize(("sizes", "kind", "blocks"), [((7, 70, 1), "rows", 3), ((7, 3, 90), "positions", 2)])
def test_softmax_loss(simulated_gpu: Any, name: str, sizes: tuple[int, int, int], kind: str, blocks: int) -> None:
    cupy, wider = simulated_gpu, wide(name)
    (outer, classes, inner), rng = sizes, np.random.default_rng(0)
    positions = outer * inner
    host = rng.normal(size=sizes).astype(dtype_named(name))
    labels = rng.integers(0, classes, size=(outer, inner))
    x, p, losses = cupy.asarray(host), cupy.empty(sizes, wider), cupy.empty(positions, wider)
    counts, loss, divisor = cupy.empty(positions, wider), cupy.empty(1, wider), cupy.empty(1, wider)
    fault, ticket = cupy.zeros(1, np.uint64), cupy.zeros(1, np.uint32)
    given = (cupy.asarray(labels.astype(wider)), 2, True)
    module = KernelModule("softmax", dtype_named(name))
    found = []
    for block_count in (blocks, 1000):
        module.launch_blocks(
            f"softmax_loss_{kind}", block_count, 64, positions, x, p, classes, inner, *given, fault, losses, counts, 0.0,
            loss, divisor, ticket
        )  # fmt: skip
        found.append((p.get(), loss.get(), divisor.get()))
    for ours, again in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, again)  # however many blocks there are
    exact = np.exp(host.astype(np.float64))
    exact /= exact.sum(axis=1, keepdims=True)
    chosen = np.take_along_axis(exact, labels[:, None, :], axis=1)[:, 0, :]
    limit = 1e-12 if name == "float64" else 1e-5
    np.testing.assert_allclose(found[0][0], exact, rtol=limit, atol=limit)
    assert found[0][2] == (labels != 2).sum()
    np.testing.assert_allclose(found[0][1], -np.log(chosen)[labels != 2].mean(), rtol=limit)
    assert fault.get() == 0
    assert ticket.get() == 0


@pytest.mark.parametrize("name", ["float64", "float16"])
def test_slopes_of_prelu(simulated_gpu: Any, name: str) -> None:
    cupy, wider, shape = simulated_gpu, wide(name), (3, 37, 50)
    rng = np.random.default_rng(0)
    x, dy = (rng.normal(size=shape).astype(dtype_named(name)) for _ in range(2))
    terms = np.where(x > 0, 0, x.astype(np.float64) * dy.astype(np.float64))
    module = KernelModule("prelu", dtype_named(name))
    ticket, sums = cupy.zeros(1, np.uint32), cupy.empty(37 * 9, wider)
    limit = 1e-12 if name == "float64" else 1e-5
    for last in (False, True):
        given = [
            cupy.asarray(np.ascontiguousarray(values.transpose(0, 2, 1) if last else values)) for values in (x, dy)
        ]
        for is_shared in (False, True):
            expected = terms.sum() if is_shared else terms.sum(axis=(0, 2))
            diff = cupy.ones(expected.shape or 1, wider)
            for blocks in (4, 100):
                diff.fill(1)
                module.launch_blocks(
                    "prelu_slopes", blocks, 256, 150, *given, diff, sums, ticket, 17, 37, 50, last, is_shared
                )
                np.testing.assert_allclose(diff.get(), expected + 1, rtol=limit, atol=limit * 10)


@pytest.mark.parametrize("name", ["float64", "float16"])
def test_sum_of_squares(simulated_gpu: Any, name: str) -> None:
    cupy, wider, count = simulated_gpu, wide(name), 5000
    rng = np.random.default_rng(0)
    x, targets = rng.normal(size=count).astype(dtype_named(name)), rng.normal(size=count).astype(wider)
    differences, loss, sums = cupy.empty(count, wider), cupy.empty(1, wider), cupy.empty(5, wider)
    ticket, module = cupy.zeros(1, np.uint32), KernelModule("losses", dtype_named(name))
    exact = x.astype(np.float64) - targets
    results = set()
    for blocks in (1, 3, 5):
        module.launch_blocks(
            "euclidean_forward",
            blocks,
            256,
            count,
            cupy.asarray(x),
            cupy.asarray(targets),
            differences,
            10.0,
            loss,
            sums,
            ticket,
        )
        results.add(float(loss.get()[0]))
    assert len(results) == 1
    np.testing.assert_allclose(results.pop(), (exact**2).sum() / 10, rtol=1e-12 if name == "float64" else 1e-5)
    np.testing.assert_allclose(differences.get(), exact, rtol=1e-6, atol=1e-6)
