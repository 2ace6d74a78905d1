"""The kernels of normalization.cu on the simulated GPU against formulas in doubles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.cupy.forms import Form
from paratrain.backends.cupy.normalization import Factors, Normalization
from paratrain.dtypes import dtype_named

SHAPES = [(3, 5, 4, 3), (2, 24, 3, 3), (300, 8), (1, 3, 70, 31), (7,), (4, 1, 9), (1, 2, 1, 1)]
KINDS = {"float32": 2e-6, "float64": 1e-13, "float16": 2e-3, "bfloat16": 1.6e-2}


class Case:
    """Values in a form, and what normalization makes of them in doubles."""

    def __init__(self, shape: tuple[int, ...], kind: str, last: bool, offset: float = 0.0) -> None:
        self.backend = CupyBackend()
        self.form = Form.of(shape, dtype_named(kind), channels_last=last)
        self.kernel = Normalization(self.backend.forms, self.backend.workspace, self.form)
        self.sum_dtype = np.float64 if kind == "float64" else np.float32
        random = np.random.default_rng(3)
        channels = self.form.channels
        self.x, self.dy = (self.stored(random.normal(size=shape) + shift) for shift in (offset, 0.0))
        self.scale, self.shift = (random.normal(size=channels) for _ in range(2))
        self.axes = tuple(axis for axis in range(len(shape)) if axis != 1)

    def stored(self, values: Any) -> Any:
        """The values as they can be stored."""
        return values.astype(self.form.dtype).astype(np.float64)

    def give(self, values: Any) -> Any:
        ordered = np.moveaxis(values, 1, -1) if self.form.channels_last else values
        return self.backend.xp.asarray(np.ascontiguousarray(ordered).reshape(-1).astype(self.form.dtype))

    def take(self, array: Any) -> Any:
        shape = self.form.shape
        if self.form.channels_last:
            return np.moveaxis(array.get().reshape(shape[0], *shape[2:], shape[1]), -1, 1).astype(np.float64)
        return array.get().reshape(shape).astype(np.float64)

    def channels(self, values: Any) -> Any:
        return self.backend.xp.asarray(np.asarray(values, self.sum_dtype))

    def column(self, values: Any) -> Any:
        """One number for each channel, to be repeated."""
        shape = self.form.shape
        return np.asarray(values).reshape((1, -1, *([1] * (len(shape) - 2))) if len(shape) > 1 else (1,))

    def moments(self) -> tuple[Any, Any, tuple[Any, Any, Any]]:
        """Mean and inverse standard deviation by the kernels, and the running sums that they have renewed."""
        mean, inverse_std = (self.channels(np.full(self.form.channels, np.nan)) for _ in range(2))
        running = tuple(self.channels(np.full(count, 2.0)) for count in (self.form.channels, self.form.channels, 1))
        self.kernel.moments(self.give(self.x), 1e-5, 0.5, mean, inverse_std, (running[0], running[1], running[2]))
        return mean, inverse_std, (running[0], running[1], running[2])


@pytest.mark.parametrize(
    ("shape", "kind", "last"),
    [
        *(
            (shape, kind, last)
            for shape in SHAPES
            for kind in KINDS
            for last in (False, True)
            if not last or len(shape) > 2
        ),
        ((2, 264, 2, 1), "bfloat16", True),
        # Channels second, in packs of pixels: several parts, whose last rows lie in some threads only.
        ((3, 2, 40, 70), "bfloat16", False),
        ((5, 3, 44, 25), "float32", False),
    ],
)
def test_all_of_it(shape: tuple[int, ...], kind: str, last: bool) -> None:
    case = Case(shape, kind, last)
    count = case.form.count // case.form.channels
    axes = case.axes if len(shape) > 1 else (0,)
    expected_mean, variance = case.x.mean(axis=axes), case.x.var(axis=axes)
    mean, inverse_std, running = case.moments()
    limit = 1e-12 if kind == "float64" else 1e-5
    np.testing.assert_allclose(mean.get().reshape(-1), expected_mean.reshape(-1), rtol=limit, atol=limit)
    expected_inverse = 1 / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(inverse_std.get().reshape(-1), expected_inverse.reshape(-1), rtol=limit)
    unbiased = variance * (count / (count - 1) if count > 1 else 1)
    for found, added in zip(running, (expected_mean, unbiased, 1.0), strict=True):
        np.testing.assert_allclose(found.get(), 1 + np.asarray(added).reshape(-1), rtol=limit, atol=limit)

    for rectifies in (False, True):
        factors = Factors(mean, inverse_std, case.channels(case.scale), case.channels(case.shift), rectifies)
        x, dy = case.give(case.x), case.give(case.dy)
        y = case.backend.xp.empty(case.form.count, case.form.dtype)
        case.kernel.forward(x, y, factors)
        centred = case.x - case.column(mean.get())
        inverse, scale, shift = (case.column(v) for v in (inverse_std.get(), case.scale, case.shift))
        affine = centred * inverse * scale + shift
        wanted = np.maximum(affine, 0) if rectifies else affine
        top = max(np.abs(wanted).max(), 1.0)
        np.testing.assert_allclose(case.take(y), wanted, rtol=0, atol=2 * KINDS[kind] * top)

        means, slopes, scale_diff, shift_diff = (case.channels(np.full(case.form.channels, 3.0)) for _ in range(4))
        case.kernel.sums(
            x, dy, factors, means=means, slopes=slopes, scale_diff=(scale_diff, True), shift_diff=(shift_diff, False)
        )
        gradient = case.dy * (affine > 0) if rectifies else case.dy
        near = np.abs(affine) < 1e-5 if rectifies else np.zeros(shape, bool)
        assert not near.any()
        wanted_shift, wanted_scale = gradient.sum(axis=axes), (gradient * centred * inverse).sum(axis=axes)
        loose = limit * 20 * max(np.sqrt(count), 1)
        np.testing.assert_allclose(shift_diff.get().reshape(-1), wanted_shift.reshape(-1), rtol=loose, atol=loose)
        np.testing.assert_allclose(scale_diff.get().reshape(-1), 3 + wanted_scale.reshape(-1), rtol=loose, atol=loose)
        mean_gradient = gradient.mean(axis=axes, keepdims=True)
        slope = (gradient * centred).mean(axis=axes, keepdims=True) * inverse**2
        for dependent in (True, False):
            dx = case.give(case.dy)
            case.kernel.backward(x, dx, dx, factors, *((means, slopes) if dependent else (None, None)))
            expected = inverse * scale * (gradient - (mean_gradient + centred * slope if dependent else 0))
            largest = max(np.abs(expected).max(), float(np.abs(inverse * scale).max()), 1.0)
            np.testing.assert_allclose(case.take(dx), expected, rtol=0, atol=3 * max(KINDS[kind], limit) * largest)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_a_mean_far_from_zero_costs_no_digits(kind: str, last: bool) -> None:
    case = Case((4, 16, 20, 20), kind, last, offset=1000.0)
    mean, inverse_std, _ = case.moments()
    np.testing.assert_allclose(mean.get(), case.x.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(inverse_std.get(), 1 / np.sqrt(case.x.var(axis=(0, 2, 3)) + 1e-5), rtol=1e-4)


def test_statistics_that_are_stored() -> None:
    case = Case((2, 3, 4), "float32", False)
    for weight in (4.0, 0.0):
        mean, inverse_std = (case.channels([np.nan] * 3) for _ in range(2))
        running = case.channels([1.0, 2.0, 3.0]), case.channels([4.0, 8.0, 0.0]), case.channels([weight])
        case.kernel.stored_moments(1.0, running, mean, inverse_std)
        factor = 1 / weight if weight else 0.0
        np.testing.assert_allclose(mean.get(), np.array([1.0, 2, 3]) * factor)
        np.testing.assert_allclose(inverse_std.get(), 1 / np.sqrt(np.array([4.0, 8, 0]) * factor + 1), rtol=1e-6)


def test_no_mean_no_scale_no_values() -> None:
    case = Case((3, 5, 4), "float32", False)
    dy, out, shift = case.give(case.dy), case.give(case.dy), case.channels(np.zeros(5))
    case.kernel.forward(dy, out, Factors())
    np.testing.assert_array_equal(case.take(out), case.dy)
    case.kernel.sums(None, dy, Factors(), shift_diff=(shift, True))
    np.testing.assert_allclose(shift.get(), case.dy.sum(axis=(0, 2)), rtol=1e-5)
    case.kernel.backward(None, dy, out, Factors(scale=case.channels(case.scale)))
    np.testing.assert_allclose(case.take(out), case.dy * case.column(case.scale), rtol=1e-6)


@pytest.mark.parametrize("last", [False, True])
def test_what_is_no_number_is_not_rectified_away(last: bool) -> None:
    case = Case((2, 8, 4, 2), "bfloat16", last)
    case.x[1, 3] = np.nan
    y = case.give(case.x)
    case.kernel.forward(y, y, Factors(rectifies=True))
    np.testing.assert_array_equal(case.take(y), np.maximum(case.x, 0))


@pytest.mark.parametrize("last", [False, True])
def test_arrays_off_their_boundaries_give_the_same_values(last: bool) -> None:
    case = Case((3, 8, 5, 2), "float32", last)
    factors = Factors(scale=case.channels(case.scale), shift=case.channels(case.shift))
    room = case.backend.xp.empty(case.form.count + 1, np.float32)
    moved, y = room[1:], case.backend.xp.empty(case.form.count, np.float32)
    moved[...] = case.give(case.x)
    case.kernel.forward(case.give(case.x), y, factors)
    case.kernel.forward(moved, moved, factors)
    np.testing.assert_array_equal(case.take(moved), case.take(y))
    scale = case.backend.xp.empty(9, np.float32)[1:]
    scale[...] = factors.scale
    again = case.backend.xp.empty(case.form.count, np.float32)
    case.kernel.forward(case.give(case.x), again, Factors(scale=scale, shift=factors.shift))
    np.testing.assert_array_equal(case.take(again), case.take(y))


def test_the_same_bits_each_time() -> None:
    results = []
    for _ in range(2):
        case = Case((9, 24, 11, 7), "bfloat16", True)
        mean, inverse_std, running = case.moments()
        means, slopes = (case.channels(np.zeros(24)) for _ in range(2))
        case.kernel.sums(case.give(case.x), case.give(case.dy), Factors(mean, inverse_std), means=means, slopes=slopes)
        results.append([array.get().tobytes() for array in (mean, inverse_std, *running, means, slopes)])
    assert results[0] == results[1]
