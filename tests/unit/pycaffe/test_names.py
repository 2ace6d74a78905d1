"""The names of pycaffe's modules, and its small functions."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest

import paratrain as caffe
from paratrain import log as log_module
from paratrain import pycaffe
from paratrain.pycaffe.modes import new_backend
from paratrain.solvers import Solver


@pytest.fixture
def own_log() -> Iterator[logging.Logger]:
    """The log as it was before."""
    logger = logging.getLogger("paratrain")
    before = logger.level, logger.propagate
    yield logger
    if log_module._handler is not None:
        logger.removeHandler(log_module._handler)
        log_module._handler = None
    logger.level, logger.propagate = before


@pytest.mark.parametrize("name", pycaffe.__all__)
def test_both_ways_to_import_give_the_same_names(name: str) -> None:
    value = getattr(pycaffe, name)
    if name in ("layers", "log"):  # packages of paratrain that serve as these
        return
    if name != "LayerParameter":
        assert getattr(caffe, name) is value


def test_layers_and_the_log_under_paratrain() -> None:
    relu = caffe.layers.ReLU(caffe.layers.Input(shape={"dim": [1, 2]}), in_place=True)
    assert [layer.type for layer in caffe.to_proto(relu).layer] == ["Input", "ReLU"]
    assert caffe.params.Pooling.MAX == 0
    assert caffe.proto.caffe_pb2.NetParameter is pycaffe.proto.caffe_pb2.NetParameter
    assert callable(caffe.log)
    assert dir(pycaffe) == sorted(set(dir(pycaffe)))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = pycaffe.nothing


def test_modules_that_scripts_reach_into_without_importing_them() -> None:
    for module in (caffe, pycaffe):
        assert module._caffe is module.pycaffe is pycaffe
        assert module.classifier.Classifier is pycaffe.Classifier
        assert module.detector.Detector is pycaffe.Detector
    assert isinstance(caffe._caffe.BlobVec(), list)
    assert caffe._caffe.Solver is Solver


def test_the_log_is_switched_on(
    own_log: logging.Logger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GLOG_minloglevel", raising=False)
    caffe.init_log()
    caffe.log("a word")
    pycaffe.log("another")
    caffe.init_log(1)
    caffe.log("not this")
    caffe.init_log(0, True)
    caffe.log("this")
    monkeypatch.setenv("GLOG_minloglevel", "2")
    caffe.init_log()
    caffe.log("nor this")
    assert own_log.level == logging.ERROR
    caffe.init_log(logging.INFO)
    assert own_log.level == logging.INFO
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("] ")[1] for line in lines] == ["a word", "another", "this"]
    assert all("test_names.py:" in line for line in lines)


def test_a_timer() -> None:
    timer = caffe.Timer()
    assert timer.ms == 0
    begin = time.perf_counter()
    timer.start()
    time.sleep(0.02)
    timer.stop()
    between = (time.perf_counter() - begin) * 1000
    assert 20 <= timer.ms <= between
    assert timer.ms == timer.ms
    timer.start()
    assert timer.ms < 20  # which stops it


def test_gpu_mode_warns_and_goes_on() -> None:
    with pytest.warns(UserWarning, match=r"set_mode_gpu\(\): the CPU computes: "):
        caffe.set_mode_gpu()
    with pytest.warns(UserWarning, match=r"set_device\(0\): the CPU computes: "):
        caffe.set_device(0)
    assert new_backend().device is None
    caffe.set_mode_cpu()


def test_layer_types() -> None:
    assert {"Convolution", "SoftmaxWithLoss", "Data"} <= set(caffe.layer_type_list())
