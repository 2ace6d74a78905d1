from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, set_up_layer


def interp_layer(fields: str) -> str:
    return f'type: "Interp" bottom: "x" interp_param {{ {fields} }}'


def interpolate(x: npt.NDArray[np.float64], height: int, width: int) -> npt.NDArray[np.float64]:
    """Pixel by pixel, between the four neighbours, corners on corners."""
    y = np.zeros((*x.shape[:2], height, width))
    for n, c, i, j in np.ndindex(*y.shape):
        at = [p * (s - 1) / (o - 1) if o > 1 else 0.0 for p, s, o in ((i, x.shape[2], height), (j, x.shape[3], width))]
        low = [min(int(a), s - 1) for a, s in zip(at, x.shape[2:], strict=True)]
        for down, right in np.ndindex(2, 2):
            row, column = min(low[0] + down, x.shape[2] - 1), min(low[1] + right, x.shape[3] - 1)
            part = [a - b if offset else 1 - (a - b) for a, b, offset in zip(at, low, (down, right), strict=True)]
            y[n, c, i, j] += part[0] * part[1] * x[n, c, row, column]
    return y


CASES = [
    ("height: 7 width: 5", (2, 3, 4, 3), (7, 5)),
    ("height: 2 width: 3", (1, 2, 5, 6), (2, 3)),
    ("height: 1 width: 1", (1, 2, 3, 4), (1, 1)),
    ("height: 3 width: 4", (2, 1, 1, 1), (3, 4)),
    ("zoom_factor: 3", (1, 2, 3, 4), (7, 10)),
    ("shrink_factor: 2", (1, 2, 5, 6), (3, 3)),
    ("shrink_factor: 2 zoom_factor: 3", (1, 1, 5, 6), (7, 7)),
    ("zoom_factor: 2 height: 3 width: 3", (1, 1, 4, 4), (7, 7)),
    ("shrink_factor: 2 zoom_factor: 3 height: 3 width: 2", (1, 1, 5, 5), (3, 2)),
    ("zoom_factor: 2 pad_beg: -1", (1, 2, 4, 5), (5, 7)),
    ("zoom_factor: 2 pad_beg: -1 pad_end: -2", (1, 2, 6, 5), (5, 3)),
]


@pytest.mark.parametrize(("fields", "shape", "output"), CASES)
def test_values_and_gradient(fields: str, shape: tuple[int, ...], output: tuple[int, int]) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    (y,) = set_up_layer(interp_layer(fields), [x]).forward()
    start = 1 if "pad_beg: -1" in fields else 0
    end = 2 if "pad_end: -2" in fields else 0
    inside = x[:, :, start : shape[2] - end, start : shape[3] - end]
    np.testing.assert_allclose(y, interpolate(inside, *output), rtol=1e-12, atol=1e-12)
    check_gradient(interp_layer(fields), [x])


def test_more_lines_than_one_block() -> None:
    rng = np.random.default_rng(1)
    for shape, output in (((1, 1, 3, 4), (150, 131)), ((1, 1, 150, 3), (70, 2)), ((1, 1, 131, 140), (129, 65))):
        x = rng.normal(size=shape)
        text = interp_layer(f"height: {output[0]} width: {output[1]}")
        (y,) = set_up_layer(text, [x]).forward()
        np.testing.assert_allclose(y, interpolate(x, *output), rtol=1e-10, atol=1e-10)
        check_gradient(text, [x], exhaustive_limit=20)


def test_the_size_of_a_second_bottom() -> None:
    x, like = np.random.default_rng(2).normal(size=(2, 3, 4, 5)), np.ones((1, 7, 6, 9))
    text = 'type: "Interp" bottom: "x" bottom: "like"'
    (y,) = set_up_layer(text, [x, like]).forward()
    np.testing.assert_allclose(y, interpolate(x, 6, 9), rtol=1e-12, atol=1e-12)
    check_gradient(text, [x, like], propagate=[True, False])
    check_gradient(text, [x, like])


def test_reshape_to_another_size() -> None:
    run = set_up_layer(interp_layer("zoom_factor: 2"), [np.ones((1, 1, 2, 2))])
    x = np.random.default_rng(3).normal(size=(2, 1, 3, 5))
    run.bottoms[0].reshape(*x.shape)
    run.bottoms[0].data[...] = x
    run.layer.reshape(run.bottoms, run.tops)
    np.testing.assert_allclose(run.forward()[0], interpolate(x, 5, 9), rtol=1e-12)


@pytest.mark.parametrize(
    ("fields", "shape", "error", "message"),
    [
        ("", (1, 1, 2, 2), LayerError, "give height and width"),
        ("height: 4", (1, 1, 2, 2), LayerError, "give height and width"),
        ("height: 4 width: 0", (1, 1, 2, 2), LayerError, "4 x 0 pixels"),
        ("zoom_factor: 0", (1, 1, 2, 2), LayerError, "zoom_factor is 0"),
        ("shrink_factor: -1", (1, 1, 2, 2), LayerError, "shrink_factor is -1"),
        ("zoom_factor: 2 pad_beg: 1", (1, 1, 2, 2), LayerError, "only cropping"),
        ("zoom_factor: 2 pad_end: -3", (1, 1, 2, 4), ShapeMismatchError, "leave -1 x 1 pixels"),
        ("zoom_factor: 2", (2, 2), ShapeMismatchError, r"takes 4 axes"),
    ],
)
def test_wrong_uses(fields: str, shape: tuple[int, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        set_up_layer(interp_layer(fields), [np.ones(shape)])
