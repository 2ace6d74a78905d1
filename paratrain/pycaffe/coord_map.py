"""Where a value of one blob lies in another: what a Crop needs that lays one feature map over another.

A coordinate x of a layer's bottom lies at ``scale * x + shift`` of its top. Maps of layers that follow each other are
composed, those of layers that are walked backwards inverted. As in pycaffe a map is a tuple (axis, scale, shift): ``axis``
is the one before the first spatial axis, None where none was met; scale and shift are arrays, one value for all spatial
axes or one for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from paratrain.errors import NetError
from paratrain.pycaffe.net_spec import Function, Top, layer_function

__all__ = [
    "AxisMismatchException",
    "UndefinedMapException",
    "compose",
    "coord_map",
    "coord_map_from_to",
    "crop",
    "inverse",
]

Numbers = npt.NDArray[np.float64]
CoordMap = tuple[int | None, Numbers, Numbers]

# Types whose tops lie just where their bottoms do.
PASS_THROUGH_LAYERS = [
    "AbsVal", "BN", "BNLL", "BatchNorm", "Bias", "Clip", "Dropout", "ELU", "Eltwise", "Exp", "LRN", "Log", "MVN",
    "Normalize", "PReLU", "Power", "ReLU", "ReLU6", "Scale", "Sigmoid", "Softmax", "Split", "Swish", "SyncBN", "TanH",
    "Threshold",
]  # fmt: skip


class UndefinedMapException(NetError):  # noqa: N818  pycaffe's name
    """A layer has no map: its tops do not lie over its bottoms, as those of InnerProduct."""


class AxisMismatchException(NetError):  # noqa: N818  pycaffe's name
    """Layers count their spatial axes from different ones."""


def coord_map(fn: Function) -> CoordMap:
    """Return the map from a layer's bottom to its top. Raises UndefinedMapException for a type that has none."""
    if fn.type_name in PASS_THROUGH_LAYERS:
        return _identity()
    if fn.type_name in ("Convolution", "Pooling", "Im2col", "Deconvolution"):
        axis, stride, kernel, pad = _window(fn)
        if fn.type_name == "Deconvolution":
            return axis, stride, (kernel - 1) / 2 - pad
        return axis, 1 / stride, (pad - (kernel - 1) / 2) / stride
    if fn.type_name == "Crop":
        given = fn.params.get("crop_param", fn.params)
        return int(given.get("axis", 2)) - 1, np.ones(1), -_numbers(given, "offset", 0)
    raise UndefinedMapException(
        f"where the tops of a {fn.type_name} layer lie over its bottoms is not defined: it has no window of its input"
    )


def _identity() -> CoordMap:
    return None, np.ones(1), np.zeros(1)


def _window(fn: Function) -> tuple[int, Numbers, Numbers, Numbers]:
    """Axis, stride, kernel size and padding; the kernel with its holes, if it is dilated."""
    message = "pooling_param" if fn.type_name == "Pooling" else "convolution_param"
    given = {**fn.params, **fn.params.get(message, {})}
    if given.get("global_pooling"):
        raise UndefinedMapException("global pooling has one value for the whole image, and no map")
    if "kernel_size" not in given and "kernel_h" not in given:
        raise NetError(f"a {fn.type_name} layer has no kernel_size, so that its map is not known")
    kernel, stride = _sides(given, "kernel_size", "kernel", 1), _sides(given, "stride", "stride", 1)
    dilated = (kernel - 1) * _numbers(given, "dilation", 1) + 1
    return int(given.get("axis", 1)), stride, dilated, _sides(given, "pad", "pad", 0)


def _sides(given: Mapping[str, Any], name: str, short: str, default: int) -> Numbers:
    """A size that may be given for height and width apart: ``kernel_h`` and ``kernel_w``."""
    if f"{short}_h" in given or f"{short}_w" in given:
        return np.array([given.get(f"{short}_h", default), given.get(f"{short}_w", default)], np.float64)
    return _numbers(given, name, default)


def _numbers(given: Mapping[str, Any], name: str, default: int) -> Numbers:
    values = np.array(given.get(name, default), np.float64, ndmin=1)
    return values if values.size else np.array([default], np.float64)


def compose(base_map: CoordMap, next_map: CoordMap) -> CoordMap:
    """Return the map that applies ``next_map`` first, then ``base_map``. Raises AxisMismatchException."""
    (base_axis, base_scale, base_shift), (next_axis, next_scale, next_shift) = base_map, next_map
    if base_axis is not None and next_axis is not None and base_axis != next_axis:
        raise AxisMismatchException(
            f"one layer has its spatial axes behind axis {base_axis}, another behind {next_axis}"
        )
    axis = next_axis if base_axis is None else base_axis
    return axis, base_scale * next_scale, base_scale * next_shift + base_shift


def inverse(coord_map: CoordMap) -> CoordMap:
    """Return the map back."""
    axis, scale, shift = coord_map
    return axis, 1 / scale, -shift / scale


def coord_map_from_to(top_from: Top, top_to: Top) -> CoordMap:
    """Return the map from ``top_from`` to ``top_to`` through a blob that both are made of.

    Of a Crop only the blob that is cropped counts. Raises NetError where they have no such blob, or only by way of layers
    without a map.
    """
    undefined: list[str] = []
    from_maps = dict(_walk(top_from, undefined))
    for top, to_map in _walk(top_to, undefined):
        if top in from_maps:
            return compose(to_map, inverse(from_maps[top]))
    reason = f"; there is no way through {', '.join(sorted(set(undefined)))}" if undefined else ""
    raise NetError(
        f"the tops of a {top_from.fn.type_name} and of a {top_to.fn.type_name} layer are not made of one blob by way of "
        f"layers that keep places{reason}"
    )


def _walk(top: Top, undefined: list[str]) -> Iterator[tuple[Top, CoordMap]]:
    """Yield every blob that ``top`` is made of, with the map from it to ``top``; note the types that have no map."""
    maps: dict[Top, CoordMap] = {top: _identity()}
    waiting = [top]
    while waiting:
        found = waiting.pop(0)
        yield found, maps[found]
        bottoms = found.fn.inputs[:1] if found.fn.type_name == "Crop" else found.fn.inputs
        new = [bottom for bottom in bottoms if bottom not in maps]
        if not new:
            continue
        try:
            to_top = compose(maps[found], coord_map(found.fn))
        except UndefinedMapException:
            undefined.append(found.fn.type_name)
            continue
        maps.update(dict.fromkeys(new, to_top))
        waiting += new


def crop(top_from: Top, top_to: Top) -> Top:
    """Return the Crop that cuts out of ``top_from`` what lies over ``top_to``, with its axis and offset.

    Raises NetError where the scales differ, where ``top_to`` begins before ``top_from``, and where it lies between pixels.
    """
    axis, scale, shift = coord_map_from_to(top_from, top_to)
    shift = np.where(np.isclose(shift, np.round(shift), rtol=0, atol=1e-6), np.round(shift), shift)
    if not np.allclose(scale, 1, rtol=0, atol=1e-9):
        raise NetError(f"cannot crop: a pixel of the one is {_listed(scale)} pixels of the other; add a Deconvolution")
    if not (shift <= 0).all():
        raise NetError(
            f"cannot crop: what is to be kept begins {_listed(shift)} pixels before the blob to cut; pad more"
        )
    if not (np.round(shift) == shift).all():
        raise NetError(f"cannot crop: the blobs lie {_listed(-shift)} pixels apart, which is no whole number")
    offset = [int(-value) for value in shift]
    # Without an axis nothing but layers that work value by value lies between them.
    given = {"offset": offset} if axis is None else {"axis": axis + 1, "offset": offset}
    made: Top = layer_function("Crop")(top_from, top_to, crop_param=given)
    return made


def _listed(values: Numbers) -> str:
    return " x ".join(f"{value:g}" for value in values)
