from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

import paratrain as caffe
from paratrain.backends import create_backend
from paratrain.errors import LayerError, NetError
from paratrain.layers.base import LayerContext
from paratrain.net import Net
from paratrain.proto import TEST, TRAIN, NetParameter
from tests.gradient_check import check_gradient, set_up_layer

MODULE = '''
import numpy as np
import paratrain as caffe


class Line(caffe.Layer):
    """y = w x + param_str."""

    def setup(self, bottom, top):
        self.offset = float(self.param_str)
        self.blobs.add_blob(1)
        self.blobs[0].data[...] = 2

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.blobs[0].data * bottom[0].data + self.offset

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += np.sum(top[0].diff * bottom[0].data)
        if propagate_down[0]:
            bottom[0].diff[...] = self.blobs[0].data * top[0].diff

    def describe(self):
        return self.name, self.phase, self.rank, self.size, self.param_str_


class EuclideanLoss(caffe.Layer):
    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise Exception("Need two inputs to compute distance.")

    def reshape(self, bottom, top):
        self.diff = np.zeros_like(bottom[0].data, dtype=np.float64)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.diff**2) / bottom[0].num / 2.

    def backward(self, top, propagate_down, bottom):
        for i in range(2):
            if propagate_down[i]:
                sign = 1 if i == 0 else -1
                bottom[i].diff[...] = sign * self.diff * top[0].diff / bottom[i].num


class Broken(caffe.Layer):
    def reshape(self, bottom, top):
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.helper()

    def helper(self):
        raise RuntimeError("the user's own words")


class Plain:
    """Not a caffe.Layer, and does without."""

    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape(2)
    def forward(self, bottom, top): top[0].data[...] = 7
    def backward(self, top, propagate_down, bottom): pass


class Half:
    def setup(self, bottom, top): pass


not_a_class = 3
'''


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module lies in the current folder, which is not on sys.path."""
    (tmp_path / "user_module.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield
    for name in ("user_module", "bad_module", "old_module"):
        sys.modules.pop(name, None)


def layer_text(kind: str, param_str: str = "", module: str = "user_module") -> str:
    return (
        f'name: "mine" type: "Python" python_param {{ module: "{module}" layer: "{kind}" param_str: "{param_str}" '
        "share_in_parallel: true }"
    )


def test_a_layer_with_a_parameter() -> None:
    x = np.random.default_rng(0).normal(size=(3, 4))
    run = set_up_layer(layer_text("Line", "0.5"), [x], top_count=1)
    np.testing.assert_allclose(run.forward()[0], 2 * x + 0.5)
    check_gradient(layer_text("Line", "0.5"), [x], top_count=1)
    assert run.layer.param_propagate_down == [True]


def test_pycaffes_own_example_of_a_loss() -> None:
    rng = np.random.default_rng(1)
    text = layer_text("EuclideanLoss") + " loss_weight: 0.5"
    check_gradient(text, [rng.normal(size=(3, 2)), rng.normal(size=(3, 2))], top_count=1)
    with pytest.raises(LayerError, match="Need two inputs"):
        set_up_layer(text, [np.zeros((3, 2))], top_count=1)


def test_what_a_layer_may_know() -> None:
    context = LayerContext(create_backend(), TEST, rank=1, size=3)
    run = set_up_layer(layer_text("Line", "1"), [np.zeros(2)], top_count=1, context=context)
    assert run.layer.describe() == ("mine", caffe.TEST, 1, 3, "1")
    assert run.layer.offset == 1
    with pytest.raises(AttributeError, match="no_such_thing"):
        _ = run.layer.no_such_thing


def test_a_class_of_any_kind() -> None:
    assert set_up_layer(layer_text("Plain"), [], top_count=1).forward()[0].tolist() == [7, 7]


def test_an_exception_names_the_layer_and_keeps_the_traceback() -> None:
    run = set_up_layer(layer_text("Broken"), [np.zeros(2)], top_count=1)
    with pytest.raises(LayerError) as caught:
        run.forward()
    text = str(caught.value)
    assert text.startswith(
        "layer 'mine' (Python): user_module.Broken.forward failed: RuntimeError: the user's own words\nTraceback"
    )
    assert 'user_module.py", line' in text
    assert text.index(", in forward") < text.index(", in helper")
    assert "paratrain/layers/python.py" not in text
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(
        LayerError, match=r"Broken.backward failed: NotImplementedError: the class has no method backward"
    ):
        run.layer.backward(run.tops, [True], run.bottoms)


def test_in_a_net_too() -> None:
    text = 'layer { type: "Python" top: "x" name: "mine" python_param { module: "user_module" layer: "Broken" } }'
    net = Net(text_format.Parse(text, NetParameter()), LayerContext(create_backend(), TRAIN))
    with pytest.raises(NetError, match=r"(?s)'mine'.*user's own words.*Traceback.*in helper") as caught:
        net.forward()
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_code_may_be_forbidden() -> None:
    context = LayerContext(create_backend(), TRAIN, allow_python=False)
    with pytest.raises(LayerError, match=r"'mine' \(Python\): .*'Line' of module 'user_module'.*--allow-python"):
        set_up_layer(layer_text("Line"), [], context=context)
    assert "user_module" not in sys.modules


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('type: "Python"', "must have a module and a layer"),
        (layer_text("Line", module="no_such_module"), "no module 'no_such_module' .*PYTHONPATH"),
        (layer_text("Nothing"), r"module 'user_module' \(.*user_module.py\) has no class 'Nothing'"),
        (layer_text("not_a_class"), "has no class 'not_a_class'"),
        (layer_text("Half"), "lacks the methods reshape, forward, backward"),
        (layer_text("Line", "no number"), r"(?s)Line.setup failed: ValueError: could not convert.*Traceback"),
    ],
)
def test_what_cannot_be(text: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        set_up_layer(text, [np.zeros(2)], top_count=1)


def test_modules_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "bad_module.py").write_text("x = 1\ny = x / 0\n")
    with pytest.raises(
        LayerError, match=r"(?s)importing 'bad_module' failed: ZeroDivisionError.*bad_module.py\", line 2"
    ):
        set_up_layer(layer_text("Line", module="bad_module"), [])
    (tmp_path / "old_module.py").write_text("import caffe\n")
    with pytest.raises(LayerError, match="'old_module' failed; write 'import paratrain as caffe'"):
        set_up_layer(layer_text("Line", module="old_module"), [])


def test_a_registered_layer_may_take_its_settings_from_param_str() -> None:
    from paratrain.layers import LAYERS, Layer, register_layer

    @register_layer("TestPower")
    class TestPower(Layer):
        def setup(self, bottom, top):  # type: ignore[no-untyped-def]
            self.exponent = int(self.parameter.python_param.param_str)

        def reshape(self, bottom, top):  # type: ignore[no-untyped-def]
            top[0].reshape_like(bottom[0])

        def forward(self, bottom, top):  # type: ignore[no-untyped-def]
            self.write(top[0])[...] = self.read(bottom[0]) ** self.exponent

        def backward(self, top, propagate_down, bottom):  # type: ignore[no-untyped-def]
            x = self.read(bottom[0])
            self.write_diff(bottom[0])[...] = self.read_diff(top[0]) * self.exponent * x ** (self.exponent - 1)

    try:
        check_gradient('type: "TestPower" python_param { param_str: "3" }', [np.array([1.0, -2.0])])
    finally:
        del LAYERS._entries["TestPower"]
