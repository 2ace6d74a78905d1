"""Which kernels are given to the GPU, for whoever wants to know."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

__all__ = ["note", "noting"]

_lists: list[list[str]] = []


def note(name: str) -> None:
    """Say that a kernel is given to the GPU, by this process."""
    if _lists:
        _lists[-1].append(name)


@contextlib.contextmanager
def noting() -> Iterator[list[str]]:
    """A context that gives a list, to which the names of all kernels are added: the family of one of our own, cuBLAS, or cuDNN
    and the name of the plan. Those of CuPy itself are not noted.
    """
    _lists.append([])
    try:
        yield _lists[-1]
    finally:
        _lists.pop()
