"""Finding oneDNN, and doing without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from paratrain.backends import create_backend
from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.library import Library, UnsupportedError, load
from paratrain.backends.onednn.names import Algorithm, PropKind
from paratrain.backends.onednn.primitive import Descriptor, Engine, best
from paratrain.errors import BackendError
from tests.optional import need_onednn
from tests.paths import REPOSITORY

SAY = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from paratrain.backends import create_backend
print(create_backend("onednn").name, create_backend("onednn").name)
"""


def say(**variables: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)} | variables
    return subprocess.run(
        [sys.executable, "-c", SAY], env=environment, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def library() -> Library:
    need_onednn()
    return load()


@pytest.mark.parametrize("value", ["off", "/proc/self/exe"])
def test_numpy_computes_where_the_library_cannot_be_loaded_and_one_line_says_so(value: str) -> None:
    *lines, names = say(PARATRAIN_ONEDNN=value).splitlines()
    assert names == "numpy numpy"
    assert len(lines) == 1
    assert "the backend onednn cannot be used here: " in lines[0]
    assert value in lines[0]


def test_the_description_names_version_instructions_and_threads(library: Library) -> None:
    found = create_backend("onednn").description
    assert found.startswith(f"oneDNN {library.version[0]}.{library.version[1]} ({library.instruction_set}), ")
    assert found.endswith(f" {library.thread_count} thread" + "s" * (library.thread_count != 1))


def test_one_thread_unless_the_user_says_otherwise(library: Library) -> None:
    ask = "from paratrain.backends.onednn.library import load; print(load().thread_count); import os; print(*sorted(os.environ))"
    for given, expected in ({}, "1"), ({"OMP_NUM_THREADS": "2"}, "2"):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | given
        environment["PYTHONPATH"] = str(REPOSITORY)
        done = subprocess.run([sys.executable, "-c", ask], env=environment, check=True, capture_output=True, text=True)
        count, names = done.stdout.splitlines()
        assert count == expected
        assert ("OMP_NUM_THREADS" in names.split()) == bool(given), "the environment is left as it was"


FORK = """
import os, signal
import numpy as np
from paratrain.layers import LayerContext
from paratrain.backends import create_backend
from paratrain.net import Net
from paratrain.proto import TEST, NetParameter, parse_prototxt
net = Net(parse_prototxt(open("net.prototxt").read(), NetParameter), LayerContext(create_backend("onednn"), TEST))
expected = net.forward_from_to() or net.blobs["out"].data.sum()
assert len(os.listdir("/proc/self/task")) > 1, "several threads compute"
if not (child := os.fork()):
    signal.alarm(30)
    net.forward_from_to()
    os._exit(int(net.blobs["out"].data.sum() != expected))
status = os.waitpid(child, 0)[1]
net.forward_from_to()
print(status, len(os.listdir("/proc/self/task")))
"""
FORK_NET = """
layer { name: "data" type: "DummyData" top: "data"
        dummy_data_param { shape { dim: 8 dim: 16 dim: 32 dim: 32 } data_filler { type: "constant" value: 1 } } }
layer { name: "out" type: "Convolution" bottom: "data" top: "out"
        convolution_param { num_output: 32 kernel_size: 3 weight_filler { type: "constant" value: 1 } } }
"""


def test_a_forked_process_computes(tmp_path: Path) -> None:
    need_onednn()
    (tmp_path / "net.prototxt").write_text(FORK_NET)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK], env=environment, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout == "0 2\n", done.stderr


def test_plain_loops_are_refused(library: Library) -> None:
    engine = Engine(library)
    plain = Layout.plain(library, (2, 16, 8, 8))
    weights, last = Layout.plain(library, (16, 16, 3, 3)), Layout.channels_last(library, (2, 16, 8, 8))
    made = Descriptor(
        engine, "convolution_forward", PropKind.FORWARD_TRAINING, Algorithm.CONVOLUTION_DIRECT,
        plain, weights, None, last, (1, 1), (0, 0), (1, 1), (1, 1),
    )  # fmt: skip
    assert made.is_slow
    with pytest.raises(UnsupportedError, match="plain loops"):
        best([made])


def test_a_call_that_fails_says_which_and_why(library: Library) -> None:
    with pytest.raises(BackendError, match="memory_desc_create_with_strides: invalid arguments"):
        Layout.strided(library, (2, -3), (1, 1))


def test_importing_paratrain_loads_no_library(tmp_path: Path) -> None:
    code = "import paratrain.net; print(any('dnnl' in line for line in open('/proc/self/maps')))"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "False"
