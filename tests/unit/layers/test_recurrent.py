"""LSTMUnit, LSTM and RNN."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from paratrain.errors import LayerError, ShapeMismatchError
from tests.gradient_check import LayerRun, check_gradient, set_up_layer
from tests.unit.layers.golden import golden_names, run_golden_case

UNIT = 'type: "LSTMUnit" bottom: "c" bottom: "gates" bottom: "cont"'
KINDS = ["LSTM", "RNN"]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def cell(c: Any, gates: Any, cont: float) -> tuple[Any, Any]:
    """One step of one stream."""
    i, f, o, g = np.split(gates, 4)
    c = cont * sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return c, sigmoid(o) * np.tanh(c)


def plain(
    kind: str, blobs: list[Any], x: Any, cont: Any, static: Any = None, states: Any = None
) -> tuple[Any, list[Any]]:
    """The top (T, N, H) and the last states, stream by stream and step by step."""
    steps, streams = cont.shape
    blobs = list(blobs)
    w_x, b = blobs.pop(0), blobs.pop(0)
    w_static = blobs.pop(0) if static is not None else None
    w_h, *output = blobs
    size = w_h.shape[1]
    top = np.zeros((steps, streams, size))
    last = [np.zeros((1, streams, size)) for _ in range(2 if kind == "LSTM" else 1)]
    for n in range(streams):
        h = np.zeros(size) if states is None else states[0][0, n]
        c = np.zeros(size) if states is None or kind == "RNN" else states[1][0, n]
        for t in range(steps):
            z = w_x @ x[t, n].ravel() + b + w_h @ (cont[t, n] * h)
            if static is not None:
                z = z + w_static @ static[n].ravel()
            if kind == "LSTM":
                c, h = cell(c, z, cont[t, n])
                top[t, n] = h
            else:
                h = np.tanh(z)
                top[t, n] = np.tanh(output[0] @ h + output[1])
        for state, value in zip(last, (h, c), strict=False):
            state[0, n] = value
    return top, last


def layer_text(kind: str, extra: str = "", size: int = 3) -> str:
    fillers = 'weight_filler { type: "gaussian" std: 0.6 } bias_filler { type: "gaussian" std: 0.3 }'
    return f'type: "{kind}" recurrent_param {{ num_output: {size} {fillers} {extra} }}'


def inputs(steps: int = 4, streams: int = 2, rest: tuple[int, ...] = (3,)) -> tuple[Any, Any]:
    """Values, and sequences that begin with the batch and once within it."""
    rng = np.random.default_rng(steps + streams)
    cont = np.ones((steps, streams))
    cont[0] = 0
    cont[steps // 2, 0] = 0
    return rng.normal(size=(steps, streams, *rest)), cont


def values(run: LayerRun) -> list[Any]:
    return [blob.data.copy() for blob in run.layer.blobs]


@pytest.mark.parametrize("name", golden_names("lstm", "rnn") or ["lstm"])
def test_golden(name: str) -> None:
    run_golden_case(name)


# -- LSTMUnit


@pytest.mark.parametrize(("streams", "size"), [(1, 1), (3, 2)])
def test_unit(streams: int, size: int) -> None:
    rng = np.random.default_rng(0)
    c, gates = rng.normal(size=(1, streams, size)), rng.normal(size=(1, streams, 4 * size))
    cont = np.linspace(0, 1, streams).reshape(1, streams)
    run = set_up_layer(UNIT, [c, gates, cont], top_count=2)
    tops = run.forward()
    for n in range(streams):
        for top, expected in zip(tops, cell(c[0, n], gates[0, n], cont[0, n]), strict=True):
            np.testing.assert_allclose(top[0, n], expected)
    for propagate in ([True, True, False], [True, False, False], [False, True, False]):
        check_gradient(UNIT, [c, gates, cont], propagate=propagate, top_count=2)


def test_unit_with_large_gates_is_finite() -> None:
    run = set_up_layer(UNIT, [[[[1.0]]], [[[1e4, -1e4, 1e4, -1e4]]], [[1]]], top_count=2, dtype=np.float32)
    c, h = run.forward()
    assert c.item() == -1
    assert h.item() == pytest.approx(np.tanh(-1))


def test_unit_that_cannot_be() -> None:
    for shapes, message in [
        (((2, 3, 4), (2, 3, 16), (2, 3)), r"'c' is \(2, 3, 4\); expected \(1, N, D\)"),
        (((1, 3, 4), (1, 3, 12), (1, 3)), r"'gates' is \(1, 3, 12\); expected \(1, 3, 16\)"),
        (((1, 3, 4), (1, 3, 16), (3,)), r"'cont' is \(3,\); expected \(1, 3\)"),
    ]:
        with pytest.raises(ShapeMismatchError, match=message):
            set_up_layer(UNIT, [np.zeros(shape) for shape in shapes], top_count=2)
    run = set_up_layer(UNIT, [np.zeros((1, 1, 1)), np.zeros((1, 1, 4)), np.zeros((1, 1))], top_count=2)
    assert not run.layer.allow_force_backward(2)
    run.forward()
    with pytest.raises(LayerError, match="no gradient by .*'cont'"):
        run.layer.backward(run.tops, [True, True, True], run.bottoms)


# -- LSTM and RNN


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_and_gradients(kind: str, static: bool) -> None:
    x, cont = inputs(5, 2, (2, 3))
    extra = [np.random.default_rng(9).normal(size=(2, 4))] if static else []
    propagate = [True, False, *([True] if static else [])]
    run = set_up_layer(layer_text(kind), [x, cont, *extra])
    top, _ = plain(kind, values(run), x, cont, *extra)
    np.testing.assert_allclose(run.forward()[0], top)
    check_gradient(layer_text(kind), [x, cont, *extra], propagate=propagate, exhaustive_limit=40)


@pytest.mark.parametrize(("steps", "streams", "size"), [(1, 1, 1), (3, 1, 2), (2, 3, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_over_sizes(kind: str, steps: int, streams: int, size: int) -> None:
    x, cont = inputs(steps, streams)
    check_gradient(layer_text(kind, size=size), [x, cont], propagate=[True, False])


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_blobs_and_bottoms_are_left_alone(kind: str) -> None:
    x, cont = inputs()

    def freeze(run: LayerRun) -> None:
        run.layer.param_propagate_down = [index % 2 == 1 for index in range(len(run.layer.blobs))]

    run = check_gradient(layer_text(kind), [x, cont], propagate=[False, False], prepare=freeze)
    for blob in run.layer.blobs:
        blob.diff[...] = 5
    run.layer.backward(run.tops, [False, False], run.bottoms)
    assert [bool((blob.diff == 5).all()) for blob in run.layer.blobs] == [
        index % 2 == 0 for index in range(len(run.layer.blobs))
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_sequences_go_on_in_the_next_batch(kind: str) -> None:
    x, cont = inputs(6, 3)
    cont[3] = 1  # the second half goes on where the first one ended
    whole = set_up_layer(layer_text(kind), [x, cont])
    expected = whole.forward()[0]
    run = set_up_layer(layer_text(kind), [x[:3], cont[:3]])
    np.testing.assert_allclose(run.forward()[0], expected[:3])
    run.bottoms[0].data[...], run.bottoms[1].data[...] = x[3:], cont[3:]
    np.testing.assert_allclose(run.forward()[0], expected[3:])
    run.layer.reset()
    np.testing.assert_allclose(run.forward()[0], plain(kind, values(run), x[3:], cont[3:])[0])


@pytest.mark.parametrize("kind", KINDS)
def test_another_number_of_streams_and_steps_starts_anew(kind: str) -> None:
    x, cont = inputs(4, 2)
    run = set_up_layer(layer_text(kind), [x, cont])
    run.forward()
    x, cont = inputs(6, 3)
    cont[...] = 1
    run.bottoms[0].reshape(*x.shape)
    run.bottoms[1].reshape(*cont.shape)
    run.bottoms[0].data[...], run.bottoms[1].data[...] = x, cont
    run.layer.reshape(run.bottoms, run.tops)
    np.testing.assert_allclose(run.forward()[0], plain(kind, values(run), x, cont)[0])


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_exposed_states(kind: str, static: bool) -> None:
    x, cont = inputs()
    cont[0] = [1, 0.5]
    rng = np.random.default_rng(3)
    extra = [rng.normal(size=(2, 2, 1))] if static else []
    states = [rng.normal(size=(1, 2, 3)) for _ in range(2 if kind == "LSTM" else 1)]
    bottoms, text = [x, cont, *extra, *states], layer_text(kind, "expose_hidden: true")
    run = set_up_layer(text, bottoms, top_count=1 + len(states))
    top, last = plain(kind, values(run), x, cont, *(extra or [None]), states)
    for _ in range(2):  # nothing is carried from pass to pass
        for found, expected in zip(run.forward(), [top, *last], strict=True):
            np.testing.assert_allclose(found, expected)
    propagate = [True, False, *([True] if static else []), *[False] * len(states)]
    run = check_gradient(
        text, bottoms, propagate=propagate, top_count=1 + len(states), differentiable_tops=[0], exhaustive_limit=40
    )
    # As in Caffe, gradients do not go from one batch to the next.
    run.forward()
    run.layer.backward(run.tops, propagate, run.bottoms)
    before = run.bottoms[0].diff.copy()
    for blob in run.tops[1:]:
        blob.diff[...] = 100
    run.layer.backward(run.tops, [True] * len(bottoms), run.bottoms)
    np.testing.assert_array_equal(run.bottoms[0].diff, before)
    for blob in (run.bottoms[1], *run.bottoms[-len(states) :]):
        assert not blob.diff.any()


@pytest.mark.parametrize("kind", KINDS)
def test_debug_info_names_the_parts_of_each_step(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    x, cont = inputs(2, 1)
    run = set_up_layer(layer_text(kind, "debug_info: true") + ' name: "r"', [x, cont])
    with caplog.at_level(logging.INFO, "paratrain.layers.recurrent"):
        top = run.forward()[0]
        run.layer.backward(run.tops, [True, False], run.bottoms)
    unit, blob = ("unit_2", "h_2") if kind == "LSTM" else ("o_neuron_2", "o_2")
    assert f"    [Forward] Layer r_{unit}, top blob {blob} data: {abs(top[1]).mean():g}" in caplog.messages
    assert any(message.startswith("    [Backward] Layer r_") for message in caplog.messages)


@pytest.mark.parametrize(
    ("shapes", "extra", "top_count", "message"),
    [
        (((4, 2), (4, 2)), "", 1, r"'bottom0' is \(4, 2\); expected \(T, N, \.\.\.\)"),
        (((4, 2, 3), (4, 3)), "", 1, r"'bottom1' is \(4, 3\); expected \(4, 2\)"),
        (((4, 2, 3), (4, 2), (3, 5)), "", 1, r"'bottom2' is \(3, 5\); expected \(2, \.\.\.\)"),
        (((4, 2, 3), (4, 2)), "expose_hidden: true", 3, "h_0 and c_0 and makes 3 tops; the prototxt gives 2 bottoms"),
        (((4, 2, 3), (4, 2)), "", 2, "makes 1 tops; the prototxt gives 2 bottoms and 2 tops"),
        (((4, 2, 3), (4, 2), (1, 2, 3), (1, 3, 3)), "expose_hidden: true", 3, r"'bottom3' is \(1, 3, 3\); a state is"),
    ],
)  # fmt: skip
def test_what_cannot_be(shapes: Any, extra: str, top_count: int, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        set_up_layer(layer_text("LSTM", extra), [np.zeros(shape) for shape in shapes], top_count=top_count)


def test_num_output_is_needed_and_inputs_keep_their_size() -> None:
    with pytest.raises(LayerError, match="num_output must be given"):
        set_up_layer('type: "RNN"', [np.zeros((1, 1, 1)), np.zeros((1, 1))])
    run = set_up_layer(layer_text("RNN"), [np.zeros((2, 1, 3)), np.zeros((2, 1))])
    run.bottoms[0].reshape(2, 1, 4)
    with pytest.raises(ShapeMismatchError, match=r"has 4 values for each step and stream; the weights \(3, 3\) take 3"):
        run.layer.reshape(run.bottoms, run.tops)
