"""Sums, products and maxima of several blobs on the GPU, value by value. All arrays are flat and lie in one form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paratrain.backends.cupy.forms import Form, Forms
from paratrain.backends.cupy.packs import pack_of

__all__ = ["MOST_BLOBS", "Eltwise"]

MOST_BLOBS = 8
"""That products and maxima, and the gradients of everything, take at once."""


class Eltwise:
    """The kernels of kernels/eltwise.cu. What is written may be one of the arrays that are read."""

    def __init__(self, forms: Forms) -> None:
        self._forms = forms

    def sum(self, form: Form, values: Sequence[Any], y: Any, factors: Sequence[float] = (), slope: float = 1.0) -> None:
        """y = the sum of all values, each times its factor (1 without any); then y where y > 0, else slope y."""
        values, factors = list(values), list(factors or [1.0] * len(values))
        while len(values) > MOST_BLOBS:
            self._launch("sum_forward", form, [y, 1.0, MOST_BLOBS], values[:MOST_BLOBS], factors[:MOST_BLOBS])
            values, factors = [y, *values[MOST_BLOBS:]], [1.0, *factors[MOST_BLOBS:]]
        self._launch("sum_forward", form, [y, slope, len(values)], values, factors)

    def sum_gradients(
        self,
        form: Form,
        dy: Any,
        gradients: Sequence[Any | None],
        factors: Sequence[float],
        relu: tuple[Any, float] | None = None,
    ) -> None:
        """Each gradient = dy times its factor; None is left out. ``relu`` (y, slope): dy goes back through that ReLU before."""
        y, slope = relu or (None, 1.0)
        # The last may be dy itself, from which the others are made.
        wanted = [(out, factor) for out, factor in zip(gradients, factors, strict=True) if out is not None]
        wanted.sort(key=lambda pair: bool(pair[0].data.ptr == dy.data.ptr))
        for start in range(0, len(wanted), MOST_BLOBS):
            some = wanted[start : start + MOST_BLOBS]
            self._launch("sum_backward", form, [dy, y, slope, len(some)], *map(list, zip(*some, strict=True)))

    def product(self, form: Form, values: Sequence[Any], y: Any) -> None:
        """y = the product of all values."""
        self._launch("product_forward", form, [y, len(values)], values)

    def product_gradients(
        self, form: Form, dy: Any, values: Sequence[Any], gradients: Sequence[Any | None], y: Any | None = None
    ) -> None:
        """Each gradient = dy times the product of the other values, or with the product ``y`` dy y / value; None is left out."""
        self._launch("product_backward", form, [dy, y, len(values)], values, gradients)

    def maximum(self, form: Form, values: Sequence[Any], y: Any) -> None:
        """y = the largest of the values."""
        self._launch("maximum_forward", form, [y, len(values)], values)

    def maximum_gradients(self, form: Form, dy: Any, values: Sequence[Any], gradients: Sequence[Any | None]) -> None:
        """Each gradient = dy where its value is the one that Caffe takes for the largest, else 0; None is left out."""
        self._launch("maximum_backward", form, [dy, len(values)], values, gradients)

    def _launch(self, name: str, form: Form, first: Sequence[Any], *lists: Sequence[Any]) -> None:
        """Run a kernel whose arguments are those of ``first`` and then each list, filled up to MOST_BLOBS."""
        filled = [
            [*items, *[0.0 if isinstance(items[0], float) else None] * (MOST_BLOBS - len(items))] for items in lists
        ]
        arguments = [*first, *(item for items in filled for item in items)]
        arrays = (item for item in arguments if not isinstance(item, (int, float)))
        pack = pack_of(form.dtype, form.count, *arrays)
        kernels = self._forms.kernels("eltwise", form.dtype)
        kernels.launch(name + ("_packed" if pack > 1 else ""), form.count // pack, *arguments)
