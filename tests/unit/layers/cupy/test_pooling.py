"""Pooling on the simulated GPU, in all forms, against Caffe, numpy and plain loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.backends import create_backend
from paratrain.backends.base import PoolingGeometry, PoolMethod
from paratrain.backends.cupy.backend import CupyBackend
from paratrain.backends.cupy.pooling import CupyPooling
from paratrain.layers.base import Clock, LayerContext
from paratrain.proto import TEST, TRAIN
from tests.gradient_check import distinct_values, set_up_layer
from tests.unit.layers.cupy.agreement import agree
from tests.unit.layers.cupy.passes import FORMS, form_of, lay
from tests.unit.layers.golden import golden_names, run_golden_case

CHANNELS = (1, 3, 8, 40)
"""One pixel's bytes: odd, a pack of narrow values, several."""


@pytest.mark.parametrize("name", golden_names("pool", "spp"))
def test_agrees_with_caffe(name: str) -> None:
    run_golden_case(name, backend="cupy")


@st.composite
def layers(draw: st.DrawFn) -> tuple[str, tuple[int, ...]]:
    """A pooling whose windows may reach over the edge, and the shape of its bottom."""
    kernel = [draw(st.integers(1, 4)) for _ in range(2)]
    stride = [draw(st.integers(1, 4)) for _ in range(2)]
    pad = [draw(st.integers(0, size - 1)) for size in kernel]
    sizes = [size + draw(st.integers(0, 6)) for size in kernel]
    fields = " ".join(
        f"{field}_{axis}: {values[index]}"
        for field, values in (("kernel", kernel), ("stride", stride), ("pad", pad))
        for index, axis in enumerate("hw")
    )
    if any(step > size for step, size in zip(stride, kernel, strict=True)):
        fields += " round_mode: FLOOR"  # rounded up, the last window may begin behind the image
    text = f'type: "Pooling" pooling_param {{ pool: {draw(st.sampled_from(["MAX", "AVE"]))} {fields} }}'
    return text, (draw(st.integers(1, 2)), draw(st.sampled_from(CHANNELS)), *sizes)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(case=layers(), name=st.sampled_from(FORMS), top_name=st.sampled_from(FORMS))
def test_random_windows(case: tuple[str, tuple[int, ...]], name: str, top_name: str) -> None:
    text, shape = case
    run = agree(text, [few_values(shape)], [name], top_names=[top_name])
    form = form_of(name, shape)
    diff_form = form_of(top_name, shape)
    assert run.bottoms[0].data_memory.arrangement is None or run.bottoms[0].data_memory.arrangement.form == form
    if diff_form.dtype.itemsize < 4:
        assert run.bottoms[0].diff_memory.arrangement.form.dtype == diff_form.dtype, "the gradient keeps its type"


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize("shape", [(2, 3, 5, 9), (1, 70, 4, 4), (3, 40, 1, 1), (2, 9, 17, 20)])
def test_whole_images(shape: tuple[int, ...], method: str, name: str) -> None:
    layer = f'type: "Pooling" pooling_param {{ pool: {method} global_pooling: true }}'
    agree(layer, [few_values(shape)], [name])


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    "kernel", ["kernel_size: 3 stride: 2 pad: 1", "kernel_size: 17 stride: 1", "global_pooling: true"]
)
def test_indices_of_maxima(kernel: str, name: str) -> None:
    """Kernels of more than 255 places keep wide marks."""
    layer = f'type: "Pooling" top: "top" top: "indices" pooling_param {{ pool: MAX {kernel} }}'
    agree(layer, [few_values((2, 8, 18, 19))], [name])


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("kernel", ["kernel_size: 2 stride: 2", "global_pooling: true"])
def test_no_number_is_the_maximum_and_gets_no_gradient(kernel: str, name: str) -> None:
    values = np.arange(2 * 8 * 4 * 4, dtype=np.float64).reshape(2, 8, 4, 4) / 16
    values[0, 1, 1, 0] = np.nan
    backend = CupyBackend()
    run = set_up_layer(
        f'type: "Pooling" top: "top" top: "indices" pooling_param {{ pool: MAX {kernel} }}', [values],
        dtype=np.float32, backend="cupy",
    )  # fmt: skip
    backend = run.layer.backend  # type: ignore[assignment]
    lay(backend, run.bottoms[0].data_memory, values, form_of(name, values.shape))
    run.layer.forward(run.bottoms, run.tops)
    assert np.isnan(run.tops[0].data[0, 1, 0, 0])
    assert np.isnan(run.tops[0].data).sum() == 1
    assert run.tops[1].data[0, 1, 0, 0] == -1
    run.tops[0].diff[...] = 1
    run.layer.backward(run.tops, [True], run.bottoms)
    window = 2 if "size" in kernel else 4
    assert run.bottoms[0].diff[0, 1, :window, :window].sum() == 0
    assert run.bottoms[0].diff[0, 0, :window, :window].sum() == 1


@pytest.mark.parametrize("phase", [None, TEST])
def test_stochastic_pooling(phase: Any) -> None:
    more = {} if phase is None else {"phase": phase}
    layer = 'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 }'
    values = np.abs(distinct_values((2, 3, 8, 7), np.random.default_rng(1), gap=0.125))
    for name in ("float32", "bfloat16 last"):
        agree(layer, [values], [name], top_names=["float32"], is_capturable=phase is None, factor=2, **more)


def test_a_recording_draws_the_numbers_of_its_step() -> None:
    layer = 'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 3 }'
    values = np.abs(distinct_values((2, 3, 8, 7), np.random.default_rng(1), gap=0.125))
    backend, clock = CupyBackend(), Clock()
    run = set_up_layer(layer, [values], context=LayerContext(backend=backend, phase=TRAIN, seed=3, clock=clock))
    eager = []
    for clock.iteration in range(3):
        eager += run.forward()
    run.forward()
    recording = backend.record(lambda: run.layer.forward(run.bottoms, run.tops))
    assert recording is not None
    for clock.iteration in range(3):
        run.layer.before_replay()
        recording.replay()
        found = run.tops[0].data_memory.device(backend.device).get()
        assert np.array_equal(found, eager[clock.iteration].reshape(-1))
    assert not np.array_equal(eager[0], eager[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", [(3, 2), (16, 17)])
def test_the_primitive_draws_as_numpy_does(kernel: tuple[int, int], dtype: Any) -> None:
    geometry = PoolingGeometry(
        PoolMethod.STOCHASTIC, 2, 3, (18, 19), kernel, (2, 1), (0, 0), (1 + (18 - kernel[0]) // 2, 20 - kernel[1])
    )
    random, results = np.random.default_rng(0), []
    bottom = np.maximum(random.normal(size=(2, 3, 18, 19)), 0).astype(dtype)
    numbers, top_diff = (random.random((2, 3, *geometry.output)).astype(dtype) for _ in range(2))
    for backend in (create_backend("numpy"), CupyBackend()):
        xp = backend.xp
        pooling = backend.pooling(geometry, dtype)
        top, bottom_diff = xp.empty_like(xp.asarray(top_diff)), xp.empty_like(xp.asarray(bottom))
        pooling.forward(xp.asarray(bottom), top, xp.asarray(numbers.copy()))
        pooling.backward(xp.asarray(bottom), xp.asarray(top_diff), bottom_diff)
        results.append([array if xp is np else array.get() for array in (top, bottom_diff)])
    assert isinstance(pooling, CupyPooling)
    np.testing.assert_array_equal(results[1][0], results[0][0])
    np.testing.assert_allclose(results[1][1], results[0][1], rtol=1e-6)


@pytest.mark.parametrize("method", list(PoolMethod)[:2])
def test_the_primitive_in_doubles(method: PoolMethod) -> None:
    geometry = PoolingGeometry(method, 2, 5, (7, 6), (3, 2), (2, 2), (1, 0), (4, 3))
    bottom, results = few_values((2, 5, 7, 6)), []
    top_diff = np.random.default_rng(0).normal(size=(2, 5, 4, 3))
    for backend in (create_backend("numpy"), CupyBackend()):
        xp = backend.xp
        pooling = backend.pooling(geometry, np.float64)
        top, bottom_diff = xp.empty_like(xp.asarray(top_diff)), xp.empty_like(xp.asarray(bottom))
        mask = xp.empty_like(top) if method is PoolMethod.MAX else None
        pooling.forward(xp.asarray(bottom), top, mask)
        pooling.backward(xp.asarray(bottom), xp.asarray(top_diff), bottom_diff)
        arrays = [top, bottom_diff] + ([mask] if mask is not None else [])
        results.append([array if xp is np else array.get() for array in arrays])
    for ours, expected in zip(results[1], results[0], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-14)


def few_values(shape: tuple[int, ...]) -> Any:
    """Values of which many are equal, exact in all types."""
    return np.random.default_rng(2).integers(-6, 7, shape) / 4
