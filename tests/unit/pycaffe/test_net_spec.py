"""Networks written in Python parse to the messages that are meant."""

# ruff: noqa: C408, N812  nets are written as users write them: L, P and dict(...)

from __future__ import annotations

import copy

import numpy as np
import pytest
from google.protobuf.message import Message

from paratrain import layers as package_layers
from paratrain.errors import NetError
from paratrain.layers import LAYERS
from paratrain.proto import TEST, TRAIN, LayerParameter, NetParameter, parse_prototxt
from paratrain.pycaffe import net_spec
from paratrain.pycaffe.fields import assign_proto, param_name_dict
from paratrain.pycaffe.net_spec import Function, NetSpec, Top, to_proto
from paratrain.pycaffe.net_spec import layers as L
from paratrain.pycaffe.net_spec import params as P


def message(text: str) -> NetParameter:
    return parse_prototxt(text, NetParameter)


def lenet() -> NetSpec:
    n = NetSpec()
    n.data, n.label = L.Data(
        batch_size=64, backend=P.Data.LMDB, source="mnist_lmdb", transform_param=dict(scale=1.0 / 255), ntop=2
    )
    n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=20, weight_filler=dict(type="xavier"))
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.fc1 = L.InnerProduct(n.pool1, num_output=500, weight_filler=dict(type="xavier"))
    n.relu1 = L.ReLU(n.fc1, in_place=True)
    n.score = L.InnerProduct(n.relu1, num_output=10, param=[dict(lr_mult=1), dict(lr_mult=2, decay_mult=0)])
    n.loss = L.SoftmaxWithLoss(n.score, n.label)
    return n


LENET = """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { scale: 0.003921569 }
        data_param { source: "mnist_lmdb" batch_size: 64 backend: LMDB } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
        convolution_param { num_output: 20 kernel_size: 5 weight_filler { type: "xavier" } } }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "fc1" type: "InnerProduct" bottom: "pool1" top: "fc1"
        inner_product_param { num_output: 500 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "fc1" top: "fc1" }
layer { name: "score" type: "InnerProduct" bottom: "fc1" top: "score" param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
        inner_product_param { num_output: 10 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""


def test_lenet_is_the_message_that_is_meant_and_its_text_reads_back() -> None:
    net = lenet().to_proto()
    assert net == message(LENET)
    assert message(str(net)) == net


def test_a_caffenet_with_layers_in_place_groups_and_unnamed_tops() -> None:
    def conv_relu(bottom: Top, ks: int, nout: int, stride: int = 1, pad: int = 0, group: int = 1) -> tuple[Top, Top]:
        conv = L.Convolution(bottom, kernel_size=ks, stride=stride, num_output=nout, pad=pad, group=group)
        return conv, L.ReLU(conv, in_place=True)

    data = L.Input(shape=[dict(dim=[10, 3, 227, 227])])
    _, relu1 = conv_relu(data, 11, 96, stride=4)
    pool1 = L.Pooling(relu1, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    norm1 = L.LRN(pool1, local_size=5, alpha=1e-4, beta=0.75)
    _, relu2 = conv_relu(norm1, 5, 256, pad=2, group=2)
    fc6 = L.InnerProduct(relu2, num_output=4096)
    drop6 = L.Dropout(L.ReLU(fc6, in_place=True), in_place=True)
    assert to_proto(L.Softmax(drop6)) == message("""
        layer { name: "Input1" type: "Input" top: "Input1"
                input_param { shape { dim: 10 dim: 3 dim: 227 dim: 227 } } }
        layer { name: "Convolution1" type: "Convolution" bottom: "Input1" top: "Convolution1"
                convolution_param { num_output: 96 kernel_size: 11 stride: 4 pad: 0 group: 1 } }
        layer { name: "ReLU1" type: "ReLU" bottom: "Convolution1" top: "Convolution1" }
        layer { name: "Pooling1" type: "Pooling" bottom: "Convolution1" top: "Pooling1"
                pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
        layer { name: "LRN1" type: "LRN" bottom: "Pooling1" top: "LRN1" lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 } }
        layer { name: "Convolution2" type: "Convolution" bottom: "LRN1" top: "Convolution2"
                convolution_param { num_output: 256 kernel_size: 5 stride: 1 pad: 2 group: 2 } }
        layer { name: "ReLU2" type: "ReLU" bottom: "Convolution2" top: "Convolution2" }
        layer { name: "InnerProduct1" type: "InnerProduct" bottom: "Convolution2" top: "InnerProduct1"
                inner_product_param { num_output: 4096 } }
        layer { name: "ReLU3" type: "ReLU" bottom: "InnerProduct1" top: "InnerProduct1" }
        layer { name: "Dropout1" type: "Dropout" bottom: "InnerProduct1" top: "InnerProduct1" }
        layer { name: "Softmax1" type: "Softmax" bottom: "InnerProduct1" top: "Softmax1" }""")
    assert drop6.to_proto().layer[-1].name == "Dropout1"


def test_what_is_needed_comes_along_and_names_are_those_that_were_assigned() -> None:
    n = NetSpec()
    data = L.DummyData(shape=dict(dim=[2, 3]), ntop=1)
    n["a/b"] = L.Concat(data, L.Power(data, power=2))
    n.out = L.Slice(n["a/b"], ntop=2, slice_param=dict(axis=1, slice_point=[3]))[1]
    n.quiet = L.Silence(n.out, ntop=0)
    assert [(layer.name, list(layer.bottom), list(layer.top)) for layer in n.to_proto().layer] == [
        ("DummyData1", [], ["DummyData1"]),
        ("Power1", ["DummyData1"], ["Power1"]),
        ("a/b", ["DummyData1", "Power1"], ["a/b"]),
        ("Slice1", ["a/b"], ["Slice1", "out"]),
        ("quiet", ["out"], []),
    ]
    assert n["a/b"] is n.vals()[0] and n.keys() == ["a/b", "out", "quiet"] and "out" in n
    del n.quiet
    assert len(n.to_proto().layer) == 4


def test_fields_of_the_layer_itself_its_name_and_another_type_of_message() -> None:
    n = NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 3, 8, 8]))
    n.up = L.Deconvolution(
        n.data, name="upscore", convolution_param=dict(num_output=2, kernel_size=4), param=dict(lr_mult=0)
    )
    n.py = L.Python(n.up, module="m", layer="Loss", param_str="{}", loss_weight=2.5, include=dict(phase=TRAIN), ntop=2)[
        0
    ]
    assert list(n.to_proto().layer)[1:] == list(message("""
        layer { name: "upscore" type: "Deconvolution" bottom: "data" top: "up" param { lr_mult: 0 }
                convolution_param { num_output: 2 kernel_size: 4 } }
        layer { name: "py" type: "Python" bottom: "up" top: "py" top: "Python1" loss_weight: 2.5 include { phase: TRAIN }
                python_param { module: "m" layer: "Loss" param_str: "{}" } }""").layer)  # fmt: skip


def test_values_of_every_kind() -> None:
    layer = L.Convolution(
        kernel_size=(np.int64(3), 5), stride=np.array([1, 2]), num_output=np.int32(4), bias_term=False,
        weight_filler=dict(type="gaussian", std=np.float32(0.5)), engine="CAFFE", propagate_down=True, top=[],
        param=[dict(name="w"), LayerParameter().param.add(lr_mult=3)],
    ).fn.layer("c", [], [])  # fmt: skip
    given = layer.convolution_param
    assert list(given.kernel_size) == [3, 5] and list(given.stride) == [1, 2] and given.num_output == 4
    assert given.HasField("bias_term") and not given.bias_term and given.engine == given.CAFFE
    assert given.weight_filler.std == 0.5 and list(layer.propagate_down) == [True]
    assert [(spec.name, spec.lr_mult) for spec in layer.param] == [("w", 1.0), ("", 3.0)]
    target: Message = LayerParameter()
    for value in (0.5, [1, 2]):  # as in Caffe, what is assigned to a list comes behind what it holds
        assign_proto(target, "loss_weight", value)
    assign_proto(target, "pooling_param", dict(pool=P.Pooling.AVE))
    assert target == LayerParameter(loss_weight=[0.5, 1, 2], pooling_param=dict(pool=1))


def test_update_changes_a_layer_and_keeps_it_where_that_is_wrong() -> None:
    n = lenet()
    n.update("conv1", dict(num_output=7))
    with pytest.raises(NetError, match="kernel_siz"):
        n.update("conv1", dict(num_output=9, kernel_siz=3))
    assert n.to_proto().layer[1].convolution_param.num_output == 7
    assert copy.deepcopy(n).to_proto() == n.to_proto()


def test_long_nets_do_not_run_into_pythons_limit_of_recursion() -> None:
    top = L.Input(shape=dict(dim=[1]))
    for _ in range(3000):
        top = L.ReLU(top)
    assert len(to_proto(top).layer) == 3001


def test_which_message_belongs_to_which_type() -> None:
    names = param_name_dict()
    assert names["InnerProduct"] == "inner_product" and names["LRN"] == "lrn" and names["Convolution"] == "convolution"
    assert names["Transformation"] == "transform" and "SoftmaxWithLoss" not in names


def test_the_package_of_layers_has_a_function_for_each_type_and_nothing_that_hides_one() -> None:
    assert [name for name in LAYERS.names() if name in vars(package_layers)] == []
    for name in LAYERS.names():
        assert getattr(package_layers, name).__name__ == name
    assert "Convolution" in dir(package_layers) and "Convolution" in dir(L)
    top = package_layers.Convolution(kernel_size=3, num_output=4)
    assert top.fn.type_name == "Convolution" and "tops" not in dir(package_layers)
    assert not hasattr(package_layers, "no_such_module") and not hasattr(L, "__wrapped__")


def test_types_of_forks_and_of_ones_own() -> None:
    assert L.PriorBox(aspect_ratio=[2, 3]).fn.layer("p", [], []).prior_box_param.aspect_ratio == [2, 3]
    a, b = net_spec.layer_function("MyType")(L.Input(shape=dict(dim=[1])), ntop=2)
    assert to_proto(b).layer[1].top == ["MyType1", "MyType2"] and a.fn is b.fn
    assert isinstance(net_spec.layer_function("MyType")(ntop=0), Function)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda n: L.Convolution(n.data, kernal_size=3), "kernal_size: there is no such field; did you mean 'kernel_"),
        (lambda n: L.Deconvolution(n.data, num_output=3), r"convolution_param has it: write convolution_param=dict\(num_output="),
        (lambda n: L.SoftmaxWithLoss(n.data, normalize=True), r"write loss_param=dict\(normalize="),
        (lambda n: L.Convolution(n.data, num_output="many"), "num_output: expected a whole number from 0 to .*found 'many'"),
        (lambda n: L.Convolution(n.data, num_output=-1), "num_output: expected a whole number"),
        (lambda n: L.Convolution(n.data, weight_filler="xavier"), "expected a dictionary of the fields of FillerParameter"),
        (lambda n: L.Convolution(n.data, weight_filler=dict(typ="x")), "weight_filler.typ: there is no such field; .*'type'"),
        (lambda n: L.Pooling(n.data, pool="MXA"), "expected one of MAX, AVE, STOCHASTIC .*found 'MXA'"),
        (lambda n: L.Convolution(n.data, kernel_size=[3, "x"]), "kernel_size: expected a whole number"),
        (lambda n: to_proto(L.Slice(n.data, ntop=2, in_place=True)[0]), "in_place makes as many tops as there are inputs"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named_where_they_are_given(wrong: object, said: str) -> None:
    with pytest.raises(NetError, match=said):
        wrong(lenet())  # type: ignore[operator]


def test_other_mistakes() -> None:
    n = lenet()
    with pytest.raises(TypeError, match=r"Convolution: input 0 is not a Top \(it is a int\)"):
        L.Convolution(3, num_output=2)
    with pytest.raises(TypeError, match="'x' is given several tops"):
        n.x = L.Data(ntop=2)
    with pytest.raises(TypeError, match="a int"):
        n.x = 3
    with pytest.raises(AttributeError, match="no top 'con1' yet; did you mean 'conv1'"):
        _ = n.con1
    with pytest.raises(KeyError, match="did you mean 'conv1'"):
        _ = n["con1"]
    with pytest.raises(AttributeError, match="no layer type 'Poling'; did you mean 'Pooling'"):
        _ = L.Poling
    with pytest.raises(AttributeError, match="no layer type 'Poling'; did you mean 'Pooling'"):
        _ = package_layers.Poling
    with pytest.raises(AttributeError, match="no message PolingParameter; did you mean 'Pooling'"):
        _ = P.Poling
    with pytest.raises(AttributeError, match="P.Pooling has no value 'MAXX'; did you mean 'MAX'"):
        _ = P.Pooling.MAXX
    with pytest.raises(AttributeError, match="it has none"):
        _ = P.InnerProduct.MAX
    assert P.Data.LEVELDB == 0 and P.Loss.VALID == 1 and "MAX" in dir(P.Pooling) and TEST == 1
