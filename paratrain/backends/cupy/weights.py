"""Parameters as products want them: copies in another type and order, made anew when the parameters have changed; and the way
back of their gradients.
"""

from __future__ import annotations

from typing import Any

from paratrain.backends.cupy.forms import Form, Forms
from paratrain.blob import Memory

__all__ = ["PreparedWeights", "WeightsGradient"]

_ALIGNMENT = 16


class PreparedWeights:
    """The weights of one layer, plain float32 or float64 in a memory, in ``form``, and its bias in the same type if need be.

    They begin at multiples of 16 bytes. Copies are made by one kernel, whenever a version of the memories is a new one;
    where the weights lie in ``form`` already, and no bias is asked for, there are none.
    """

    def __init__(self, forms: Forms, form: Form) -> None:
        self._forms, self.form = forms, form
        self._buffer: Any = None
        self._made_of: tuple[Any, ...] | None = None

    def read(self, weights: Memory, bias: Memory | None = None) -> tuple[Any, Any | None]:
        """Return flat arrays of the weights in ``form`` and of the bias, for reading; None where no bias is given."""
        form, plain = self.form, Form.of(self.form.shape, weights.dtype)
        array = weights.device(self._forms.device)[: form.count]
        if form == plain and bias is None and int(array.data.ptr) % _ALIGNMENT == 0:
            return array, None
        bias_count = 0 if bias is None else bias.count
        start = -(-form.count * form.dtype.itemsize // _ALIGNMENT) * _ALIGNMENT // form.dtype.itemsize
        if self._buffer is None:
            self._buffer = self._forms.device.empty(start + form.shape[0], form.dtype)
        prepared, prepared_bias = self._buffer[: form.count], self._buffer[start : start + bias_count]
        made_of = (weights, weights.version, bias, None if bias is None else bias.version)
        if made_of != self._made_of:
            bias_array = None if bias is None else bias.device(self._forms.device)
            self._prepare(array, prepared, bias_array, prepared_bias)
            self._made_of = made_of
        return prepared, prepared_bias if bias_count else None

    def _prepare(self, array: Any, prepared: Any, bias: Any | None, prepared_bias: Any) -> None:
        form, work = self.form, self._forms.parameter_work
        bias_form = Form.of((prepared_bias.size,), form.dtype)
        # What is prepared twice gets the same values.
        if (
            work is not None
            and (bias is None or work.prepare(bias, prepared_bias, bias_form))
            and work.prepare(array, prepared, form)
        ):
            return
        sizes = (form.count, form.channels, form.pixels, form.channels_last)
        kernels = self._forms.kernels("weights", form.dtype)
        kernels.launch("prepare_weights", form.count + bias_form.count, array, prepared, *sizes, bias, prepared_bias)


class WeightsGradient:
    """The gradient of the weights of one layer in the ``form`` that a product writes, on its way to the plain one."""

    def __init__(self, forms: Forms, form: Form) -> None:
        self._forms, self._form = forms, form
        self._buffer: Any = None

    def place(self, plain: Any, *, accumulate: bool) -> Any:
        """Return the flat array that the product has to write: the plain gradient itself, where that will do."""
        is_alike = self._form == Form.of(self._form.shape, plain.dtype)
        if is_alike and not accumulate and int(plain.data.ptr) % _ALIGNMENT == 0:
            return plain
        if self._buffer is None:
            self._buffer = self._forms.device.empty(self._form.count, self._form.dtype)
        if self._forms.parameter_work is not None:
            self._forms.parameter_work.settle(self._buffer)
        return self._buffer

    def finish(self, place: Any, plain: Any, *, accumulate: bool) -> None:
        """plain = what the product has written to ``place``, or += to ``accumulate``."""
        work = self._forms.parameter_work
        if place is plain or (work is not None and work.convert(place, self._form, plain, accumulate=accumulate)):
            return
        plain_form = Form.of(self._form.shape, plain.dtype)
        self._forms.convert(place, self._form, plain, plain_form, accumulate=accumulate)
