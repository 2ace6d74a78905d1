"""The arrays that graphs know."""

from __future__ import annotations

import itertools

from cudnn._names import data_type

__all__ = ["integers", "packed", "tensor"]


class tensor:  # noqa: N801
    """One array of a graph. Setters give the tensor back."""

    def __init__(
        self, dim: list[int], stride: list[int], kind: data_type, name: str, uid: int, is_virtual: bool
    ) -> None:
        self.dim, self.stride, self.kind, self.name, self.uid = list(dim), list(stride), kind, name, uid
        self.is_virtual = is_virtual

    def set_output(self, value: bool) -> tensor:
        self.is_virtual = not value
        return self

    def set_dim(self, dim: list[int]) -> tensor:
        self.dim = integers(dim)
        return self

    def set_stride(self, stride: list[int]) -> tensor:
        self.stride = integers(stride)
        return self

    def set_data_type(self, kind: data_type) -> tensor:
        self.kind = data_type(kind)
        return self

    def set_uid(self, uid: int) -> tensor:
        self.uid = uid
        return self

    def set_name(self, name: str) -> tensor:
        self.name = name
        return self

    def get_uid(self) -> int:
        return self.uid

    def get_dim(self) -> list[int]:
        return self.dim

    def get_stride(self) -> list[int]:
        return self.stride


def integers(values: list[int]) -> list[int]:
    if not isinstance(values, list) or any(type(value) is not int for value in values):
        raise TypeError(f"{values!r} is no list of integers")
    return list(values)


def packed(dim: list[int], *, last: bool) -> list[int]:
    order = [0, *range(2, len(dim)), 1] if last else list(range(len(dim)))
    steps = list(itertools.accumulate((dim[axis] for axis in order[:0:-1]), lambda a, b: a * b, initial=1))[::-1]
    found = [0] * len(dim)
    for axis, step in zip(order, steps, strict=True):
        found[axis] = step
    return found
