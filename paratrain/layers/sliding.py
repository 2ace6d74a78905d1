"""Reading how a kernel slides over images: the fields that convolution_param gives for every spatial axis."""

from __future__ import annotations

from dataclasses import dataclass

from paratrain.layers.base import Layer

__all__ = ["Sliding", "read_sliding"]


@dataclass(frozen=True)
class Sliding:
    """Sizes of a kernel and its steps, one for each spatial axis."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """The pixels that the kernel spans, its holes included."""
        return tuple(dilation * (k - 1) + 1 for k, dilation in zip(self.kernel, self.dilation, strict=True))


def read_sliding(layer: Layer, axis_count: int) -> Sliding:
    """Return what ``layer.parameter.convolution_param`` says for ``axis_count`` spatial axes.

    Raises LayerError for fields that contradict each other, are missing or below 1.
    """
    sliding = Sliding(
        kernel=_per_axis(layer, "kernel_size", ("kernel_h", "kernel_w"), axis_count, None),
        stride=_per_axis(layer, "stride", ("stride_h", "stride_w"), axis_count, 1),
        pad=_per_axis(layer, "pad", ("pad_h", "pad_w"), axis_count, 0),
        dilation=_per_axis(layer, "dilation", ("dilation_h", "dilation_w"), axis_count, 1),
    )
    for name, values in (("kernel_size", sliding.kernel), ("stride", sliding.stride), ("dilation", sliding.dilation)):
        if any(value < 1 for value in values):
            raise layer.error(f"{name} is {values}; it must be at least 1 along every axis")
    return sliding


def _per_axis(
    layer: Layer, name: str, by_axis: tuple[str, str], axis_count: int, default: int | None
) -> tuple[int, ...]:
    """Read a field that gives one value for all spatial axes, one for each, or height and width by name."""
    parameter = layer.parameter.convolution_param
    values = tuple(getattr(parameter, name))
    named = [field for field in by_axis if parameter.HasField(field)]
    if named:
        if values:
            raise layer.error(f"give {name} or {' and '.join(by_axis)}, not both")
        if axis_count != 2:
            raise layer.error(f"{named[0]} needs two spatial axes; the bottom has {axis_count}: use {name}")
        if len(named) == 1 and default is None:
            raise layer.error(f"{named[0]} is given without its partner: give both {' and '.join(by_axis)}")
        return tuple(getattr(parameter, field) if field in named else default or 0 for field in by_axis)
    if not values:
        if default is None and axis_count:
            raise layer.error(f"give {name}, or {' and '.join(by_axis)}")
        return (default or 0,) * axis_count
    if len(values) not in (1, axis_count):
        raise layer.error(f"{name} is given {len(values)} times; give it once, or once for each of {axis_count} axes")
    return values if len(values) == axis_count else values * axis_count
