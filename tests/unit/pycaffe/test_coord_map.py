"""The offsets of FCN's crops (Long, Shelhamer, Darrell: Fully Convolutional Networks, 2015)."""

# ruff: noqa: C408, N812  nets are written as users write them: L, P and dict(...)

from __future__ import annotations

import numpy as np
import pytest

from paratrain.errors import NetError
from paratrain.pycaffe.coord_map import (
    AxisMismatchException,
    UndefinedMapException,
    coord_map,
    coord_map_from_to,
    crop,
    inverse,
)
from paratrain.pycaffe.net_spec import Top
from paratrain.pycaffe.net_spec import layers as L
from paratrain.pycaffe.net_spec import params as P


def conv_relu(bottom: Top, count: int, ks: int = 3, stride: int = 1, pad: int = 1) -> Top:
    return L.ReLU(L.Convolution(bottom, kernel_size=ks, stride=stride, num_output=count, pad=pad), in_place=True)


def pool(bottom: Top, ks: int = 2) -> Top:
    return L.Pooling(bottom, pool=P.Pooling.MAX, kernel_size=ks, stride=2)


def up(bottom: Top, ks: int, stride: int) -> Top:
    given = dict(num_output=21, kernel_size=ks, stride=stride, bias_term=False)
    return L.Deconvolution(bottom, convolution_param=given)


def image() -> Top:
    return L.Input(shape=dict(dim=[1, 3, 500, 500]))


def vgg16(data: Top) -> tuple[Top, list[Top]]:
    """The scores of the last layer, and the five pooling layers."""
    top, pools, pad = data, [], 100
    for count, width in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)):
        for _ in range(count):
            top, pad = conv_relu(top, width, pad=pad), 1
        top = pool(top)
        pools.append(top)
    top = L.Dropout(conv_relu(top, 4096, ks=7, pad=0), in_place=True)
    top = L.Dropout(conv_relu(top, 4096, ks=1, pad=0), in_place=True)
    return L.Convolution(top, num_output=21, kernel_size=1, pad=0), pools


def given(top: Top) -> dict[str, object]:
    parameter = top.to_proto().layer[-1].crop_param
    return {"axis": parameter.axis, "offset": list(parameter.offset)}


def test_fcn_32s_16s_and_8s_on_vgg16() -> None:
    data = image()
    score, pools = vgg16(data)
    assert given(crop(up(score, 64, 32), data)) == {"axis": 2, "offset": [19]}

    upscore2 = up(score, 4, 2)
    score_pool4c = crop(L.Convolution(pools[3], num_output=21, kernel_size=1), upscore2)
    assert given(score_pool4c) == {"axis": 2, "offset": [5]}
    fuse_pool4 = L.Eltwise(upscore2, score_pool4c, operation=P.Eltwise.SUM)
    assert given(crop(up(fuse_pool4, 32, 16), data)) == {"axis": 2, "offset": [27]}

    upscore_pool4 = up(fuse_pool4, 4, 2)
    score_pool3c = crop(L.Convolution(pools[2], num_output=21, kernel_size=1), upscore_pool4)
    assert given(score_pool3c) == {"axis": 2, "offset": [9]}
    fuse_pool3 = L.Eltwise(upscore_pool4, score_pool3c, operation=P.Eltwise.SUM)
    assert given(crop(up(fuse_pool3, 16, 8), data)) == {"axis": 2, "offset": [31]}


def test_fcn_32s_on_alexnet() -> None:
    data = image()
    top = L.LRN(pool(conv_relu(data, 96, ks=11, stride=4, pad=100), ks=3))
    top = L.LRN(pool(conv_relu(top, 256, ks=5, pad=2), ks=3))
    for width in (384, 384, 256):
        top = conv_relu(top, width)
    top = conv_relu(pool(top, ks=3), 4096, ks=6, pad=0)
    score = L.Convolution(conv_relu(top, 4096, ks=1, pad=0), num_output=21, kernel_size=1)
    assert given(crop(up(score, 63, 32), data)) == {"axis": 2, "offset": [18]}


def test_maps_of_single_layers() -> None:
    data = image()
    axis, scale, shift = coord_map(L.Convolution(data, kernel_size=5, stride=2, pad=1, num_output=1).fn)
    assert (axis, scale.tolist(), shift.tolist()) == (1, [0.5], [-0.5])
    axis, scale, shift = coord_map(up(data, 4, 2).fn)
    assert (axis, scale.tolist(), shift.tolist()) == (1, [2], [1.5])
    # 3 values with two holes each reach over 7.
    assert coord_map(L.Convolution(data, kernel_size=3, dilation=3, num_output=1).fn)[2].tolist() == [-3]
    # Height and width apart, in both spellings.
    for sizes in (dict(kernel_h=3, kernel_w=5, stride_h=1, stride_w=2), dict(kernel_size=[3, 5], stride=[1, 2])):
        _, scale, shift = coord_map(L.Convolution(data, num_output=1, **sizes).fn)
        assert (scale.tolist(), shift.tolist()) == ([1, 0.5], [-1, -1])
    axis, scale, shift = coord_map(L.Crop(data, data, axis=2, offset=[3, 4]).fn)
    assert (axis, scale.tolist(), shift.tolist()) == (1, [1], [-3, -4])
    assert coord_map(L.ReLU(data).fn)[0] is None
    _, scale, shift = inverse((1, np.array([2.0]), np.array([1.0])))
    assert (scale.tolist(), shift.tolist()) == ([0.5], [-0.5])


def test_a_map_back_undoes_the_map() -> None:
    data = image()
    top = conv_relu(pool(data, 3), 8, ks=5, stride=3, pad=0)
    axis, scale, shift = coord_map_from_to(top, data)
    # Value 0 of the top sees pixels 0 to 10: 5 of the pooling, each of 3 pixels, 2 apart. Its middle is pixel 5.
    assert (axis, scale.tolist(), shift.tolist()) == (1, [6], [5])
    _, scale, shift = coord_map_from_to(data, top)
    assert scale[0] == pytest.approx(1 / 6) and shift[0] == pytest.approx(-5 / 6)


def test_two_blobs_of_one_size_need_no_axis() -> None:
    data = image()
    assert given(crop(L.ReLU(data), L.Sigmoid(data))) == {"axis": 2, "offset": [0]}


def test_what_cannot_be_cropped_is_said() -> None:
    data = image()
    with pytest.raises(NetError, match="a pixel of the one is 2 pixels of the other"):
        crop(pool(data), data)
    with pytest.raises(NetError, match="begins 1 pixels before"):
        crop(L.Convolution(data, kernel_size=3, num_output=1), data)
    with pytest.raises(NetError, match="0.5 pixels apart"):
        crop(L.Convolution(data, kernel_size=4, pad=2, num_output=1), data)
    with pytest.raises(NetError, match="not made of one blob"):
        crop(data, image())
    with pytest.raises(NetError, match="no way through InnerProduct"):
        crop(L.InnerProduct(data, num_output=3), data)
    with pytest.raises(UndefinedMapException, match="InnerProduct"):
        coord_map(L.InnerProduct(data, num_output=3).fn)
    with pytest.raises(UndefinedMapException, match="global"):
        coord_map(L.Pooling(data, global_pooling=True).fn)
    with pytest.raises(NetError, match="no kernel_size"):
        coord_map(L.Convolution(data, num_output=3).fn)
    with pytest.raises(AxisMismatchException, match="behind axis 2, another behind 1"):
        coord_map_from_to(L.Convolution(pool(data), kernel_size=1, num_output=1, axis=2), data)
