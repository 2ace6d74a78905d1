"""Old networks and solvers brought to today's form."""

from __future__ import annotations

from pathlib import Path

import pytest

from paratrain.errors import NetError, SolverError
from paratrain.proto import (
    NetParameter,
    SolverParameter,
    V1LayerParameter,
    format_prototxt,
    parse_prototxt,
    read_prototxt,
    upgrade_net,
    upgrade_solver,
)
from tests.paths import GOLDEN

UPGRADED = sorted((GOLDEN / "upgrade").glob("*.upgraded.prototxt"))


def upgraded(text: str, report: list[str] | None = None) -> NetParameter:
    return upgrade_net(parse_prototxt(text, NetParameter), None if report is None else report.append)


def net(text: str) -> NetParameter:
    return parse_prototxt(text, NetParameter)


@pytest.mark.skipif(not UPGRADED, reason=f"no upgraded networks at {GOLDEN / 'upgrade'}")
@pytest.mark.parametrize("path", UPGRADED, ids=lambda path: path.name.split(".")[0])
def test_upgraded_as_by_caffe_letter_by_letter(path: Path) -> None:
    old = read_prototxt(path.with_name(path.name.replace(".upgraded", "")), NetParameter)
    assert format_prototxt(upgrade_net(old)) == path.read_text()


def test_what_is_new_already_is_left_alone() -> None:
    new = net('name: "n" layer { name: "a" type: "BatchNorm" param { lr_mult: 0 } }')
    reports: list[str] = []
    assert upgrade_net(new, reports.append) is new
    assert reports == []


def test_v1_layer() -> None:
    assert upgraded("""
        layers {
          name: "c" type: CONVOLUTION bottom: "x" top: "y" include { phase: TRAIN }
          blobs { num: 1 channels: 1 height: 1 width: 1 data: 5 }
          param: "w" param: "" blob_share_mode: PERMISSIVE blobs_lr: 1 blobs_lr: 2 blobs_lr: 3 weight_decay: 0.5
          loss_weight: 4 convolution_param { num_output: 3 } loss_param { ignore_label: 7 }
        }
        layers { name: "l" type: SOFTMAX_LOSS }
    """) == net("""
        layer {
          name: "c" type: "Convolution" bottom: "x" top: "y" include { phase: TRAIN }
          blobs { num: 1 channels: 1 height: 1 width: 1 data: 5 }
          param { name: "w" share_mode: PERMISSIVE lr_mult: 1 decay_mult: 0.5 } param { name: "" lr_mult: 2 } param { lr_mult: 3 }
          loss_weight: 4 convolution_param { num_output: 3 } loss_param { ignore_label: 7 }
        }
        layer { name: "l" type: "SoftmaxWithLoss" }
    """)


def test_every_v1_type_has_a_name_today() -> None:
    for value in V1LayerParameter.DESCRIPTOR.enum_types_by_name["LayerType"].values:
        name = value.name
        layer = upgraded(f'layers {{ name: "a" type: {name} }}').layer[0]
        assert layer.type.lower().replace("withloss", "loss") == name.replace("_", "").replace("NONE", "").lower()


@pytest.mark.parametrize(
    ("kind", "owner"), [("DATA", "data"), ("IMAGE_DATA", "image_data"), ("WINDOW_DATA", "window_data")]
)
def test_transformations_leave_the_data_layers_settings(kind: str, owner: str) -> None:
    settings = 'scale: 0.5 mean_file: "m" crop_size: 3 mirror: true'
    layer = upgraded(f'layers {{ type: {kind} {owner}_param {{ source: "s" {settings} }} }}').layer[0]
    assert (
        layer
        == net(
            f'layer {{ type: "{layer.type}" {owner}_param {{ source: "s" }} transform_param {{ {settings} }} }}'
        ).layer[0]
    )


def test_settings_that_caffe_ignores_in_new_layers_are_reported() -> None:
    reports: list[str] = []
    text = 'layer { name: "d" type: "Data" data_param { scale: 0.5 mirror: true } }'
    assert upgraded(text, reports) == net(text)
    assert reports == [
        "layer 'd': data_param.scale, data_param.mirror are ignored, as in Caffe; they belong into transform_param"
    ]


def test_inputs_become_a_layer() -> None:
    expected = net("""
        layer { name: "input" type: "Input" top: "a" top: "b"
                input_param { shape { dim: 1 dim: 2 dim: 3 dim: 4 } shape { dim: 5 dim: 6 dim: 7 dim: 8 } } }
        layer { name: "r" }
    """)
    dims = " ".join(f"input_dim: {dim}" for dim in range(1, 9))
    assert upgraded(f'input: "a" input: "b" {dims} layer {{ name: "r" }}') == expected
    shapes = "input_shape { dim: [1, 2, 3, 4] } input_shape { dim: [5, 6, 7, 8] }"
    assert upgraded(f'input: "a" input: "b" {shapes} layer {{ name: "r" }}') == expected
    # A caffemodel may name its inputs without their shapes.
    assert upgraded('input: "a" layer { name: "r" }') == net('layer { name: "r" }')
    with pytest.raises(NetError, match="2 inputs and 1 input_shapes"):
        upgraded('input: "a" input: "b" input_shape { dim: 1 }')
    with pytest.raises(NetError, match="1 inputs and 3 input_dims; give four"):
        upgraded('input: "a" input_dim: [1, 2, 3]')


def test_batch_norm_with_three_settings_loses_them() -> None:
    three = "param { lr_mult: 0 } " * 3
    text = f'layer {{ name: "bn" type: "BatchNorm" {three}}} layer {{ name: "s" type: "Scale" {three}}}'
    original = net(text)
    result = upgrade_net(original)
    assert result == net(f'layer {{ name: "bn" type: "BatchNorm" }} layer {{ name: "s" type: "Scale" {three}}}')
    assert original == net(text)


def test_v0_settings_go_to_their_layers() -> None:
    result = upgraded("""
        layers { layer { name: "i" type: "images" source: "list" batchsize: 2 rand_skip: 3 shuffle_images: true new_height: 4
                         new_width: 5 cropsize: 6 mirror: true meanfile: "m" } top: "x" top: "l" }
        layers { layer { name: "pad" type: "padding" pad: 2 } bottom: "x" top: "padded" }
        layers { layer { name: "c" type: "conv" num_output: 8 kernelsize: 3 group: 2 biasterm: false blobs_lr: 1 weight_decay: 0 }
                 bottom: "padded" top: "c" }
        layers { layer { name: "n" type: "lrn" local_size: 3 alpha: 2 beta: 1 k: 3 } bottom: "c" top: "n" }
        layers { layer { name: "d" type: "dropout" dropout_ratio: 0.25 } bottom: "n" top: "n" }
        layers { layer { name: "w" type: "window_data" source: "w" det_fg_threshold: 0.75 det_context_pad: 16
                         det_crop_mode: "square" } }
        layers { layer { name: "o" type: "hdf5_output" hdf5_output_param { file_name: "f" } } bottom: "n" }
    """)
    assert result == net("""
        layer { name: "i" type: "ImageData" top: "x" top: "l"
                image_data_param { source: "list" batch_size: 2 rand_skip: 3 shuffle: true new_height: 4 new_width: 5 }
                transform_param { crop_size: 6 mirror: true mean_file: "m" } }
        layer { name: "c" type: "Convolution" bottom: "x" top: "c" param { lr_mult: 1 decay_mult: 0 }
                convolution_param { num_output: 8 kernel_size: 3 group: 2 bias_term: false pad: 2 } }
        layer { name: "n" type: "LRN" bottom: "c" top: "n" lrn_param { local_size: 3 alpha: 2 beta: 1 k: 3 } }
        layer { name: "d" type: "Dropout" bottom: "n" top: "n" dropout_param { dropout_ratio: 0.25 } }
        layer { name: "w" type: "WindowData"
                window_data_param { source: "w" fg_threshold: 0.75 context_pad: 16 crop_mode: "square" } }
        layer { name: "o" type: "HDF5Output" bottom: "n" hdf5_output_param { file_name: "f" } }
    """)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('layers { layer { name: "a" type: "blur" } }', "layer 'a': there is no V0 layer type 'blur'"),
        ('layers { layer { name: "a" type: "relu" num_output: 3 } }', "type 'relu' has no setting 'num_output'"),
        ('layers { layer { name: "a" type: "conv" new_num: 3 } }', "has no setting 'new_num'"),
        (
            'layers { layer { name: "p" type: "padding" } bottom: "x" top: "y" } '
            'layers { layer { name: "r" type: "relu" } bottom: "y" }',
            "layer 'r' (relu) reads the padding layer 'p'",
        ),
        ('layers { name: "a" } layer { name: "b" }', "has both 'layer' and the old 'layers'"),
    ],
)
def test_what_cannot_be_upgraded_is_named(text: str, message: str) -> None:
    with pytest.raises(NetError) as caught:
        upgraded(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_solver_type_becomes_a_name(name: str) -> None:
    old = parse_prototxt(f"solver_type: {name.upper()} base_lr: 1", SolverParameter)
    assert upgrade_solver(old) == parse_prototxt(f'type: "{name}" base_lr: 1', SolverParameter)
    assert old.HasField("solver_type")


def test_both_solver_types_are_an_error() -> None:
    with pytest.raises(SolverError, match='both type: "Adam" and the old solver_type: SGD; keep only type'):
        upgrade_solver(parse_prototxt('type: "Adam" solver_type: SGD', SolverParameter))


def test_nets_inside_a_solver_are_upgraded() -> None:
    old = parse_prototxt(
        'net_param { layers { type: RELU } } test_net_param { input: "x" input_dim: [1, 1, 1, 1] }', SolverParameter
    )
    new = upgrade_solver(old)
    assert new.net_param.layer[0].type == "ReLU"
    assert new.test_net_param[0].layer[0].type == "Input"


def test_snapshot_prefix_comes_from_the_solvers_file(tmp_path: Path) -> None:
    reports: list[str] = []
    solver = upgrade_solver(SolverParameter(), "models/lenet_solver.prototxt", reports.append)
    assert solver.snapshot_prefix == "models/lenet_solver"
    assert reports == ["snapshot_prefix was not specified and is set to models/lenet_solver"]
    solver = upgrade_solver(SolverParameter(snapshot_prefix=str(tmp_path)), "models/lenet_solver.prototxt")
    assert solver.snapshot_prefix == str(tmp_path / "lenet_solver")
    solver = upgrade_solver(SolverParameter(snapshot_prefix="s/lenet"), "models/lenet_solver.prototxt")
    assert solver.snapshot_prefix == "s/lenet"
