"""Training on oneDNN: the same bits in each run, beside other nets in other threads, and nothing that grows."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paratrain.backends import create_backend
from paratrain.backends.onednn.library import Handle, load
from paratrain.blob import SyncedMemory
from paratrain.net import Net
from paratrain.proto import NetParameter, SolverParameter, parse_prototxt
from paratrain.solvers import NetOptions, Solver, create_solver
from tests.optional import need_bfloat16, need_onednn
from tests.paths import GOLDEN, REPOSITORY

LENET = (GOLDEN / "nets" / "lenet.prototxt").read_text()
RESIDUAL = """
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 4 dim: 3 dim: 12 dim: 11 } shape { dim: 4 } } }
layer { name: "a" type: "Convolution" bottom: "data" top: "a"
  convolution_param { num_output: 32 kernel_size: 3 pad: 1 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "norm" type: "BatchNorm" bottom: "a" top: "a" }
layer { name: "scale" type: "Scale" bottom: "a" top: "a" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "a" top: "a" }
layer { name: "b" type: "Convolution" bottom: "a" top: "b"
  convolution_param { num_output: 32 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }
layer { name: "lrn" type: "LRN" bottom: "sum" top: "lrn" }
layer { name: "pool" type: "Pooling" bottom: "lrn" top: "pool" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "concat" type: "Concat" bottom: "pool" bottom: "pool" top: "concat" }
layer { name: "ip" type: "InnerProduct" bottom: "concat" top: "ip"
  inner_product_param { num_output: 130 weight_filler { type: "xavier" } } }
layer { name: "out" type: "InnerProduct" bottom: "ip" top: "out"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "out" bottom: "label" top: "loss" }
"""


@pytest.fixture(autouse=True)
def _onednn() -> Iterator[None]:
    need_onednn()
    library = load()
    before = library.thread_count
    yield
    library.thread_count = before


def start(text: str, thread_count: int = 1, precision: str = "float32") -> Solver:
    """A solver whose net has drawn the same weights and holds the same batch each time."""
    backend: Any = create_backend("onednn", precision)
    backend.library.thread_count = thread_count
    parameter = SolverParameter(
        base_lr=0.01, lr_policy="fixed", momentum=0.9, random_seed=1, max_iter=10_000, snapshot_after_train=False,
        net_param=parse_prototxt(text, NetParameter),
    )  # fmt: skip
    solver = create_solver(parameter, backend=backend, seed=1, net_options=NetOptions(plans_memory=True))
    random = np.random.default_rng(3)
    solver.net.blobs["data"].data[...] = random.normal(size=solver.net.blobs["data"].shape)
    solver.net.blobs["label"].data[...] = random.integers(0, 5, solver.net.blobs["label"].shape)
    return solver


def state(net: Net) -> bytes:
    """All weights, gradients and statistics."""
    parameters = net.parameters
    return b"".join(array.host().tobytes() for array in (parameters.data, parameters.diff, parameters.statistics))


@pytest.mark.parametrize("text", [LENET, RESIDUAL], ids=["lenet", "residual"])
@pytest.mark.parametrize("thread_count", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_runs_with_the_same_threads_give_the_same_bits(precision: str, thread_count: int, text: str) -> None:
    if precision == "bfloat16":
        need_bfloat16()
    solvers = [start(text, thread_count, precision) for _ in range(2)]
    assert load().thread_count == thread_count
    for _ in range(3):
        for solver in solvers:
            solver.step(5)
        assert state(solvers[0].net) == state(solvers[1].net)


def test_nets_that_train_in_several_threads_give_the_same_bits_as_alone() -> None:
    texts = [LENET, RESIDUAL, LENET]
    alone = []
    for text in texts[:2]:
        solver = start(text)
        solver.step(30)
        alone.append(state(solver.net))
    together: dict[int, bytes] = {}
    moved = start(texts[2])  # built here, and run by another thread

    def train(number: int) -> None:
        solver = moved if number == 2 else start(texts[number])
        solver.step(30)
        together[number] = state(solver.net)

    threads = [threading.Thread(target=train, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == {0: alone[0], 1: alone[1], 2: alone[0]}


def test_nothing_grows_over_a_thousand_steps() -> None:
    """Neither the memory of the process, nor Python's objects, nor oneDNN's; in a process that other tests have not used."""
    program = "from tests.unit.net.test_onednn_steadiness import print_growth; print_growth()"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    resident_kib, handle_count, traced_bytes = map(int, done.stdout.split())
    assert resident_kib < 2048, "2 KiB a step"
    assert handle_count == 0
    assert traced_bytes < 20_000


def print_growth() -> None:
    """Print what a thousand steps add: resident memory in KiB, and oneDNN's objects; and the bytes that Python adds in 100."""
    solver = start(LENET)
    solver.step(50)
    gc.collect()
    resident_kib, handle_count = _resident_kib(), _handle_count()
    solver.step(1000)
    gc.collect()
    print(_resident_kib() - resident_kib, _handle_count() - handle_count)
    tracemalloc.start()
    solver.step(20)
    before = tracemalloc.get_traced_memory()[0]
    solver.step(100)
    print(tracemalloc.get_traced_memory()[0] - before)


@pytest.mark.parametrize("text", [LENET, RESIDUAL], ids=["lenet", "residual"])
def test_nothing_is_allocated_in_bfloat16_after_the_first_steps(text: str) -> None:
    need_bfloat16()
    solver = start(text, precision="bfloat16")
    solver.step(6)
    gc.collect()
    handle_count, places = _handle_count(), _places(solver.net)  # a BatchNorm in place has two, in turn
    tracemalloc.start()
    solver.step(6)
    before = tracemalloc.get_traced_memory()[0]
    solver.step(60)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert (_handle_count(), _places(solver.net)) == (handle_count, places)
    assert grown < 20_000


def test_nets_that_are_gone_leave_nothing() -> None:
    for _ in range(2):
        start(RESIDUAL).step(2)
    gc.collect()
    handle_count = _handle_count()
    for _ in range(3):
        start(RESIDUAL).step(2)
    gc.collect()
    assert _handle_count() <= handle_count


def _resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def _places(net: Net) -> list[int]:
    """Where the arranged values of blobs lie."""
    memories = [memory for blob in net.blobs.values() for memory in (blob.data_memory, blob.diff_memory)]
    kept = [memory.kept_arrangement for memory in memories if isinstance(memory, SyncedMemory)]
    return [found.array.ctypes.data for found in kept if found is not None]


def _handle_count() -> int:
    """oneDNN's objects that live: engines, memories, primitives and what describes them."""
    return sum(isinstance(found, Handle) for found in gc.get_objects())
