from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import check_gradient, distinct_values, set_up_layer


def upsample_layer(fields: str, bottoms: int = 2) -> str:
    names = " ".join(f'bottom: "{name}"' for name in ("x", "mask")[:bottoms])
    return f'type: "Upsample" {names} upsample_param {{ {fields} }}'


def distinct_mask(shape: tuple[int, ...], pixels: int) -> npt.NDArray[np.float64]:
    """For every plane different places."""
    rng = np.random.default_rng(1)
    planes = [rng.permutation(pixels)[: shape[2] * shape[3]] for _ in range(shape[0] * shape[1])]
    return np.array(planes, np.float64).reshape(shape)


MASKED = [
    ("scale: 2", (2, 3, 2, 3), (4, 6)),
    ("", (1, 1, 1, 1), (2, 2)),
    ("scale_h: 3 scale_w: 2", (1, 2, 2, 1), (6, 2)),
    ("scale: 2 pad_out_h: true", (1, 2, 3, 2), (5, 4)),
    ("pad_out_h: true pad_out_w: true", (2, 1, 3, 2), (5, 3)),
    ("scale: 2 upsample_h: 5 upsample_w: 7", (1, 2, 3, 2), (5, 7)),
]


@pytest.mark.parametrize(("fields", "shape", "output"), MASKED)
def test_values_go_to_the_places_of_the_mask(fields: str, shape: tuple[int, ...], output: tuple[int, int]) -> None:
    x, mask = np.random.default_rng(0).normal(size=shape), distinct_mask(shape, output[0] * output[1])
    (y,) = set_up_layer(upsample_layer(fields), [x, mask]).forward()
    expected = np.zeros((*shape[:2], *output))
    for place in np.ndindex(*shape):
        expected[(*place[:2], *divmod(int(mask[place]), output[1]))] = x[place]
    assert np.array_equal(y, expected)
    check_gradient(upsample_layer(fields), [x, mask], propagate=[True, False])


def test_undoes_a_max_pooling() -> None:
    x = distinct_values((2, 3, 4, 6), np.random.default_rng(2))
    pooling = set_up_layer('type: "Pooling" pooling_param { kernel_size: 2 stride: 2 }', [x], top_count=2)
    (y,) = set_up_layer(upsample_layer("scale: 2"), pooling.forward()).forward()
    blocks, kept = x.reshape(2, 3, 2, 2, 3, 2), y.reshape(2, 3, 2, 2, 3, 2)
    assert np.array_equal(kept, np.where(blocks == blocks.max(axis=(3, 5), keepdims=True), blocks, 0))


def test_two_values_for_one_place() -> None:
    run = set_up_layer(upsample_layer("scale: 2"), [np.array([[[[1.0, 2.0]]]]), np.array([[[[3.0, 3.0]]]])])
    (y,) = run.forward()
    assert y[0, 0].tolist() == [[0, 0, 0, 2], [0, 0, 0, 0]]
    run.tops[0].diff[...] = np.arange(8).reshape(1, 1, 2, 4)
    run.layer.backward(run.tops, [True, False], run.bottoms)
    assert run.bottoms[0].diff.reshape(-1).tolist() == [3, 3]


@pytest.mark.parametrize(
    ("fields", "shape", "scale"),
    [("scale: 2", (2, 3, 2, 3), (2, 2)), ("scale_h: 1 scale_w: 3", (1, 1, 2, 1), (1, 3)), ("", (1, 2, 1, 1), (2, 2))],
)
def test_repetition(fields: str, shape: tuple[int, ...], scale: tuple[int, int]) -> None:
    x = np.random.default_rng(3).normal(size=shape)
    (y,) = set_up_layer(upsample_layer(fields, 1), [x]).forward()
    for n, c, i, j in np.ndindex(*y.shape):
        assert y[n, c, i, j] == x[n, c, i // scale[0], j // scale[1]]
    assert y.shape[2:] == (shape[2] * scale[0], shape[3] * scale[1])
    check_gradient(upsample_layer(fields, 1), [x])


@pytest.mark.parametrize(
    ("fields", "bottoms", "message"),
    [
        ("scale_h: 2", 2, "one of scale_h and scale_w"),
        ("upsample_w: 2", 2, "one of upsample_h and upsample_w"),
        ("scale: 2 scale_h: 2 scale_w: 2", 2, "scale as well as"),
        ("scale: 1", 2, "must be at least 2"),
        ("scale: 3 pad_out_h: true", 2, "need a scale of 2"),
        ("upsample_h: 1 upsample_w: 4", 2, "at least 2"),
        ("upsample_h: 4 upsample_w: 4", 1, "need a second bottom"),
        ("scale: 0", 1, "at least 1"),
    ],
)
def test_wrong_settings(fields: str, bottoms: int, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        set_up_layer(upsample_layer(fields, bottoms), [np.zeros((1, 1, 2, 2))] * bottoms)


def test_wrong_shapes_and_masks() -> None:
    with pytest.raises(ShapeMismatchError, match=r"'x' \(1, 1, 2, 2\) and bottom\[1\] 'mask' \(1, 1, 2, 3\)"):
        set_up_layer(upsample_layer(""), [np.zeros((1, 1, 2, 2)), np.zeros((1, 1, 2, 3))])
    with pytest.raises(ShapeMismatchError, match="takes 4 axes"):
        set_up_layer(upsample_layer(""), [np.zeros((2, 2)), np.zeros((2, 2))])
    for bad in (16, -1, np.nan):
        run = set_up_layer(upsample_layer(""), [np.zeros((1, 1, 2, 2)), np.array([[[[0, 1], [bad, 3]]]])])
        with pytest.raises(LayerError, match=r"'mask': the index .* at \(0, 0, 1, 0\) is outside the top's 4 x 4"):
            run.forward()
    run = set_up_layer(upsample_layer(""), [np.zeros((1, 1, 2, 2)), np.zeros((1, 1, 2, 2))])
    run.forward()
    with pytest.raises(LayerError, match="no gradient by"):
        run.layer.backward(run.tops, [True, True], run.bottoms)
    assert not run.layer.allow_force_backward(1)
