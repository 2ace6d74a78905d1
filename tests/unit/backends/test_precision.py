"""In what backends compute: what users ask for, what they get, and what they are told."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from paratrain.backends import PRECISION_VARIABLE, PRECISIONS, create_backend
from paratrain.backends.onednn.arranged import ArrangedArray, Arranger, Copies
from paratrain.backends.onednn.layout import Layout
from paratrain.backends.onednn.library import Library, load
from paratrain.backends.onednn.names import DataType
from paratrain.blob import SyncedMemory
from paratrain.errors import BackendError
from tests.optional import need_bfloat16, need_onednn
from tests.paths import REPOSITORY

SAY = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from paratrain.backends import create_backend
create_backend(precision="bfloat16")
backend = create_backend(precision="bfloat16")
print(backend.name, backend.precision)
"""


def say(**variables: str) -> list[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)} | variables
    done = subprocess.run([sys.executable, "-c", SAY], env=environment, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


def test_float32_unless_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PRECISION_VARIABLE, raising=False)
    for name in ("numpy", "onednn"):
        assert create_backend(name).precision == "float32"


@pytest.mark.parametrize("precision", ["tf32", "float16"])
def test_a_precision_of_gpus_is_refused_with_what_there_is(precision: str) -> None:
    with pytest.raises(
        BackendError, match=f"the backend onednn has no {precision}; give --precision float32 or bfloat16"
    ):
        create_backend("onednn", precision)


def test_numpy_has_float32_only() -> None:
    with pytest.raises(
        BackendError, match=r"the backend numpy has no bfloat16; give --precision float32, or .*: .*onednn"
    ):
        create_backend("numpy", "bfloat16")


def test_a_name_that_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for ask in ("argument", "variable"):
        monkeypatch.setenv(PRECISION_VARIABLE, "int4" if ask == "variable" else "")
        with pytest.raises(BackendError, match=f"no precision 'int4'; there are {', '.join(PRECISIONS)}"):
            create_backend("onednn", "int4" if ask == "argument" else None)


def test_the_variable_concerns_backends_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    need_bfloat16()
    monkeypatch.setenv(PRECISION_VARIABLE, "bfloat16")
    assert create_backend("numpy").precision == "float32"
    assert create_backend("onednn").precision == "bfloat16"
    assert create_backend("onednn", "float32").precision == "float32"
    assert create_backend("onednn").description.endswith(", bfloat16")


def test_float32_with_a_warning_where_onednn_cannot_be_loaded() -> None:
    lines = say(PARATRAIN_ONEDNN="off")
    assert lines[-1] == "numpy float32"
    assert "float32 computes: the backend numpy has no bfloat16" in lines[:-1]


@pytest.mark.parametrize("instructions", ["AVX2", "AVX512_CORE"])
def test_float32_with_a_warning_where_the_processor_has_no_such_products(instructions: str) -> None:
    need_onednn()
    (line, names) = say(ONEDNN_MAX_CPU_ISA=instructions)
    assert names == "onednn float32"
    assert line.startswith("float32 computes: the processor has no products of bfloat16 (avx")


def test_processors_with_half_the_speed() -> None:
    need_onednn()
    library = Library.__new__(Library)
    for mask, has, slow in ((0x27, False, False), (0xE7, True, False), (0x1EF, True, True), (0xFEF, True, False)):
        library._isa = mask
        assert (library.has_bfloat16, library.has_slow_bfloat16) == (has, slow)
    if load().has_slow_bfloat16:
        (line, names) = say()
        assert names == "onednn bfloat16"
        assert line.startswith("bfloat16 will be slower than --precision float32")


def test_layouts_of_two_bytes() -> None:
    need_bfloat16()
    library, shape = load(), (2, 20, 3, 5)
    plain, last = Layout.plain(library, shape), Layout.channels_last(library, shape)
    narrow = plain.cast(DataType.BF16)
    assert narrow is not None
    assert narrow.cast(DataType.BF16) is narrow
    assert (narrow.is_plain, narrow.is_in_order, narrow.size_bytes) == (False, True, plain.size_bytes // 2)
    assert narrow != plain
    assert last.cast(DataType.BF16) == Layout.channels_last(library, shape, DataType.BF16)
    blocked = Layout.blocked(library, shape, library.block_width)
    assert blocked is not None
    cast = blocked.cast(DataType.BF16)
    assert cast is not None
    assert (cast.channel_block, cast.dtype, cast.is_padded) == (library.block_width, DataType.BF16, True)


def test_values_are_rounded_to_the_nearest_and_read_back() -> None:
    need_bfloat16()
    backend = create_backend("onednn", "bfloat16")
    arranger: Arranger = backend.arranger  # type: ignore[attr-defined]
    layout = Layout.channels_last(arranger.engine.library, (1, 2, 2, 1), DataType.BF16)
    memory = SyncedMemory(4)
    memory.mutable_host()[...] = [1 + 2**-9, 1 + 3 * 2**-8, -3, 65535]
    array = Copies(arranger).read(memory, layout)
    assert array.nbytes == 8
    memory.arrange(ArrangedArray(arranger, layout))
    memory.kept_arrangement.array[...] = array
    np.testing.assert_array_equal(memory.host(), [1, 1 + 2**-6, -3, 65536])
