from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from paratrain.blob import Blob
from paratrain.errors import NetError, UnknownNameError
from paratrain.fillers import FILLERS, fan_in_and_out, fill
from paratrain.proto import FillerParameter
from paratrain.random import generator

SHAPE = (64, 32, 5, 5)  # fan in 800, fan out 1600


def filled(text: str, shape: tuple[int, ...] = SHAPE, dtype: Any = np.float32, seed: int = 1) -> np.ndarray[Any, Any]:
    blob = Blob(shape, dtype)
    fill(blob, text_format.Parse(text, FillerParameter()), generator(seed, "filler", "layer", 0))
    assert not blob.diff.any()
    values: np.ndarray[Any, Any] = blob.data.copy()
    return values


def test_all_of_caffes_fillers_are_there() -> None:
    assert FILLERS.names() == ["bilinear", "constant", "gaussian", "msra", "positive_unitball", "uniform", "xavier"]


def test_constant() -> None:
    assert np.all(filled("type: 'constant' value: 2.5") == 2.5)
    assert np.all(filled("") == 0)  # Caffe's default is the constant 0


def test_uniform() -> None:
    values = filled("type: 'uniform' min: -1 max: 3").astype(np.float64)
    assert values.min() >= -1
    assert values.max() <= 3
    assert values.mean() == pytest.approx(1, abs=0.03)
    assert values.std() == pytest.approx(4 / math.sqrt(12), rel=0.02)


def test_gaussian() -> None:
    values = filled("type: 'gaussian' mean: 0.5 std: 2").astype(np.float64)
    assert values.mean() == pytest.approx(0.5, abs=0.05)
    assert values.std() == pytest.approx(2, rel=0.02)
    assert (np.abs(values - 0.5) < 2).mean() == pytest.approx(0.6827, abs=0.01)


def test_sparse_gaussian() -> None:
    values = filled("type: 'gaussian' std: 1 sparse: 16").astype(np.float64)
    assert (values != 0).mean() == pytest.approx(16 / 64, abs=0.01)
    assert values[values != 0].std() == pytest.approx(1, rel=0.03)
    assert not filled("type: 'gaussian' std: 1 sparse: 0").any()


def test_positive_unitball() -> None:
    values = filled("type: 'positive_unitball'")
    assert values.min() >= 0
    np.testing.assert_allclose(values.reshape(64, -1).sum(axis=1), 1, rtol=1e-5)
    assert filled("type: 'positive_unitball'", (7,)).tolist() == [1] * 7


@pytest.mark.parametrize(("norm", "count"), [("FAN_IN", 800), ("FAN_OUT", 1600), ("AVERAGE", 1200)])
def test_xavier_and_msra(norm: str, count: int) -> None:
    values = filled(f"type: 'xavier' variance_norm: {norm}").astype(np.float64)
    limit = math.sqrt(3 / count)
    assert np.abs(values).max() <= limit * (1 + 1e-6)
    assert np.abs(values).max() > 0.999 * limit
    assert values.std() == pytest.approx(math.sqrt(1 / count), rel=0.02)
    values = filled(f"type: 'msra' variance_norm: {norm}").astype(np.float64)
    assert values.std() == pytest.approx(math.sqrt(2 / count), rel=0.02)
    assert np.abs(values).max() > 3 * math.sqrt(2 / count)


def test_fan_in_is_the_default() -> None:
    assert np.array_equal(filled("type: 'xavier'"), filled("type: 'xavier' variance_norm: FAN_IN"))


@pytest.mark.parametrize(
    ("shape", "expected"), [((8, 6), (6, 8)), ((8, 6, 2, 3), (36, 48)), ((5,), (1, 5)), ((), (1, 1)), ((1, 7), (7, 1))]
)
def test_fan_in_and_out(shape: tuple[int, ...], expected: tuple[float, float]) -> None:
    assert fan_in_and_out(shape) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_bilinear(size: int) -> None:
    values = filled("type: 'bilinear'", (2, 3, size, size), np.float64)
    half = math.ceil(size / 2)
    centre = (size - 1) / (2 * half)
    for y in range(size):
        for x in range(size):
            expected = (1 - abs(x / half - centre)) * (1 - abs(y / half - centre))
            assert values[:, :, y, x] == pytest.approx(np.full((2, 3), expected))


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "xavier", "msra", "positive_unitball"])
def test_the_key_alone_decides(kind: str) -> None:
    text = f"type: '{kind}' std: 1"
    assert np.array_equal(filled(text), filled(text))
    assert not np.array_equal(filled(text), filled(text, seed=2))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dtype_is_the_blobs(dtype: Any) -> None:
    values = filled("type: 'msra'", dtype=dtype)
    assert values.dtype == dtype
    assert values.astype(np.float64).std() == pytest.approx(math.sqrt(2 / 800), rel=0.02)


def test_unknown_type_lists_the_known() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown filler 'xaviar'; did you mean 'xavier'\?"):
        filled("type: 'xaviar'")
    with pytest.raises(UnknownNameError, match=r"unknown filler 'qqq'.*gaussian.*xavier"):
        filled("type: 'qqq'")


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ("type: 'bilinear'", (3, 4), "4 axes"),
        ("type: 'bilinear'", (1, 1, 3, 4), "square"),
        ("type: 'uniform' sparse: 3", SHAPE, "only 'gaussian'"),
        ("type: 'gaussian' sparse: 65", SHAPE, "more than the first axis"),
        ("type: 'gaussian' sparse: -2", SHAPE, "sparse is -2"),
        ("type: 'gaussian' std: -1", SHAPE, "not negative"),
        ("type: 'uniform' min: 1 max: 0", SHAPE, "empty"),
    ],
)
def test_wrong_settings(text: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(NetError, match=message):
        filled(text, shape)
