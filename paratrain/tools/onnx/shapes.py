"""Layers that move values about: parts, joins, other shapes, other sizes."""

from __future__ import annotations

import numpy as np

from paratrain.tools.onnx.view import LayerView, UnsayableError, translates

__all__: list[str] = []


@translates("Split")
def _split(view: LayerView) -> list[str]:
    """All tops are the bottom."""
    return [view.inputs[0]] * len(view.tops)


@translates("Flatten", "Reshape")
def _reshape(view: LayerView) -> list[str]:
    return [view.reshape(view.inputs[0], view.bottoms[0], view.tops[0])]


@translates("Parameter")
def _parameter(view: LayerView) -> list[str]:
    return [view.parameter(0)]


@translates("Permute")
def _permute(view: LayerView) -> list[str]:
    given, rank = list(view.layer.parameter.permute_param.order), view.bottoms[0].rank
    order = [*given, *(axis for axis in range(rank) if axis not in given)]
    return [view.inputs[0] if order == list(range(rank)) else view.add("Transpose", view.inputs[0], perm=order)]


@translates("Concat")
def _concat(view: LayerView) -> list[str]:
    parameter = view.layer.parameter.concat_param
    axis = parameter.concat_dim if parameter.HasField("concat_dim") else parameter.axis
    if len(view.inputs) == 1:
        return [view.inputs[0]]
    return [view.add("Concat", *view.inputs, axis=axis % view.bottoms[0].rank)]


@translates("Slice")
def _slice(view: LayerView) -> list[str]:
    parameter = view.layer.parameter.slice_param
    axis = parameter.slice_dim if parameter.HasField("slice_dim") else parameter.axis
    axis %= view.bottoms[0].rank
    if len(view.tops) == 1:
        return [view.inputs[0]]
    sizes = [view.fixed(top, axis, "where it cuts") for top in view.tops]
    return view.add_many("Split", [view.inputs[0], view.integers("sizes", sizes)], len(sizes), axis=axis)


@translates("Crop")
def _crop(view: LayerView) -> list[str]:
    parameter, size, top = view.layer.parameter.crop_param, view.bottoms[0], view.tops[0]
    first = parameter.axis % size.rank
    given = list(parameter.offset)
    offsets = given if len(given) == size.rank - first else (given or [0]) * (size.rank - first)
    cut = [
        (axis, offset)
        for axis, offset in enumerate(offsets, first)
        if (size.shape[axis], size.varies[axis]) != (top.shape[axis], top.varies[axis])
    ]
    if not cut:
        return [view.inputs[0]]
    ends = [offset + view.fixed(top, axis, "what it cuts off") for axis, offset in cut]
    return [_part(view, view.inputs[0], [offset for _, offset in cut], ends, [axis for axis, _ in cut])]


def _part(view: LayerView, x: str, starts: list[int], ends: list[int], axes: list[int]) -> str:
    return view.add(
        "Slice", x, view.integers("starts", starts), view.integers("ends", ends), view.integers("axes", axes)
    )


@translates("Tile")
def _tile(view: LayerView) -> list[str]:
    parameter, rank = view.layer.parameter.tile_param, view.bottoms[0].rank
    repeats = [1] * rank
    repeats[parameter.axis] = parameter.tiles
    return [
        view.inputs[0] if parameter.tiles == 1 else view.add("Tile", view.inputs[0], view.integers("repeats", repeats))
    ]


@translates("ShuffleChannel")
def _shuffle_channel(view: LayerView) -> list[str]:
    size, groups = view.bottoms[0], view.layer.parameter.shuffle_channel_param.group
    if groups == 1:
        return [view.inputs[0]]
    pixels = size.joined([0], [1], list(range(2, size.rank)))
    if pixels.varies[2]:
        raise UnsayableError("the pixels of its images depend on the batch; export with a fixed batch")
    each = size.shape[1] // groups
    dims = view.integers("groups", [-1 if size.varies[0] else size.shape[0], groups, each, pixels.shape[2]])
    y = view.add("Transpose", view.add("Reshape", view.inputs[0], dims), perm=[0, 2, 1, 3])
    back = [0 if axis == 0 else length for axis, length in enumerate(size.shape)]
    return [view.add("Reshape", y, view.integers("shape", back))]


@translates("Upsample")
def _upsample(view: LayerView) -> list[str]:
    parameter, x = view.layer.parameter.upsample_param, view.inputs[0]
    size, top = view.bottoms[0], view.tops[0]
    if len(view.inputs) == 1:
        by_axis = parameter.HasField("scale_h")
        scale = (parameter.scale_h, parameter.scale_w) if by_axis else (parameter.scale, parameter.scale)
        return [
            view.add(
                "Resize",
                x,
                "",
                view.floats("scales", [1, 1, *scale]),
                mode="nearest",
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        ]
    # Each value goes to the place that the mask names, in an image of zeros.
    columns = size.joined([0], [1], [2, 3])
    flat = top.joined([0], [1], [2, 3])
    places = view.add("Cast", view.reshape(view.inputs[1], size, columns), to="INT64")
    outer = view.add("Slice", view.add("Shape", x), view.integers("first", [0]), view.integers("second", [2]))
    shape = view.add("Concat", outer, view.integers("pixels", [view.fixed(flat, 2, "its image")]), axis=0)
    zeros = view.add("ConstantOfShape", shape, value=np.zeros(1, np.float32))
    y = view.add("ScatterElements", zeros, places, view.reshape(x, size, columns), axis=2)
    return [view.reshape(y, flat, top)]


@translates("Interp")
def _interp(view: LayerView) -> list[str]:
    parameter, x = view.layer.parameter.interp_param, view.inputs[0]
    size, top = view.bottoms[0], view.tops[0]
    if parameter.pad_beg or parameter.pad_end:
        ends = [view.fixed(size, axis, "its image") + parameter.pad_end for axis in (2, 3)]
        x = _part(view, x, [-parameter.pad_beg] * 2, ends, [2, 3])
    outer = view.add("Slice", view.add("Shape", x), view.integers("first", [0]), view.integers("second", [2]))
    image = view.integers("image", [view.fixed(top, axis, "its size") for axis in (2, 3)])
    sizes = view.add("Concat", outer, image, axis=0)
    return [view.add("Resize", x, "", "", sizes, mode="linear", coordinate_transformation_mode="align_corners")]
