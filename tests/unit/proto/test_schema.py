"""The schema is BVLC Caffe's, field by field, and what forks added does not disturb it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from paratrain.proto import (
    NetParameter,
    SolverParameter,
    blob_to_array,
    caffe_pb2,
    fork_fields,
    fork_of,
    parse_prototxt,
)

TABLE = Path(__file__).with_name("bvlc_schema.txt")
ENTRY = re.compile(r"(\w+)=(\d+):([\w.]+)(\*p|\*|!|)(?:\((.*)\))?$")
LABELS = {"": 1, "!": 2, "*": 3, "*p": 3}


def lines() -> list[tuple[str, list[str]]]:
    rows = [line.split(": ") for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    return [(name, entries.split()) for name, entries in rows]


def schema() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto()
    caffe_pb2.DESCRIPTOR.CopyToProto(file)
    return file


def as_foreign(package: str, name: str) -> descriptor_pb2.FileDescriptorProto:
    """Our schema under another package and file name, as another Caffe in the same process would register its own."""
    text = str(schema()).replace(".paratrain.caffe.", f".{package}.")
    file = text_format.Parse(text, descriptor_pb2.FileDescriptorProto())
    file.package, file.name = package, name
    return file


@pytest.mark.parametrize(("message_name", "entries"), [row for row in lines() if not row[0].startswith("enum ")])
def test_every_field_of_bvlc_has_its_number_type_label_and_default(message_name: str, entries: list[str]) -> None:
    (message,) = [candidate for candidate in schema().message_type if candidate.name == message_name]
    fields = {field.name: field for field in message.field}
    for entry in entries:
        match = ENTRY.match(entry)
        assert match, entry
        name, number, type_name, label, default = match.groups()
        field = fields[name]
        found_type = field.type_name.removeprefix(".paratrain.caffe.") or field.Type.Name(field.type)[5:].lower()
        assert (field.number, found_type, field.label) == (int(number), type_name, LABELS[label]), entry
        assert field.options.packed == (label == "*p"), entry
        assert field.HasField("default_value") == (default is not None), entry
        if default is not None and type_name == "float":
            assert np.float32(field.default_value) == np.float32(default), entry
        elif default is not None:
            assert field.default_value == default, entry


@pytest.mark.parametrize(("enum_name", "entries"), [row for row in lines() if row[0].startswith("enum ")])
def test_every_enum_value_of_bvlc_has_its_number(enum_name: str, entries: list[str]) -> None:
    holder = caffe_pb2
    for part in enum_name.removeprefix("enum ").split("."):
        holder = getattr(holder, part)
    for entry in entries:
        name, number = entry.split("=")
        assert holder.Value(name) == int(number)  # type: ignore[attr-defined]


def test_solver_has_its_42_fields_and_layers_the_settings_of_47_types() -> None:
    entries = dict(lines())
    assert len(entries["SolverParameter"]) == 42
    settings = {entry.split("=")[0].removesuffix("_param") for entry in entries["LayerParameter"] if "_param=" in entry}
    assert settings == {
        "transform",
        "loss",
        "accuracy",
        "argmax",
        "batch_norm",
        "bias",
        "clip",
        "concat",
        "contrastive_loss",
        "convolution",
        "crop",
        "data",
        "dropout",
        "dummy_data",
        "eltwise",
        "elu",
        "embed",
        "exp",
        "flatten",
        "hdf5_data",
        "hdf5_output",
        "hinge_loss",
        "image_data",
        "infogain_loss",
        "inner_product",
        "input",
        "log",
        "lrn",
        "memory_data",
        "mvn",
        "parameter",
        "pooling",
        "power",
        "prelu",
        "python",
        "recurrent",
        "reduction",
        "relu",
        "reshape",
        "scale",
        "sigmoid",
        "softmax",
        "spp",
        "slice",
        "swish",
        "tanh",
        "threshold",
        "tile",
        "window_data",
    }


def test_no_fork_field_lies_in_the_range_of_bvlc_numbers() -> None:
    of_bvlc = {(name, entry.split("=")[0]) for name, entries in lines() for entry in entries}
    messages_of_bvlc = {name for name, _ in lines()}
    for message in schema().message_type:
        if message.name not in messages_of_bvlc:
            continue
        for field in message.field:
            if (message.name, field.name) not in of_bvlc:
                assert field.number >= 10000 or message.name in ("BlobProto", "SolverState"), (message.name, field.name)
                assert fork_of(getattr(caffe_pb2, message.name).DESCRIPTOR.fields_by_name[field.name])


def test_fork_fields_parse_by_name_and_are_told_apart() -> None:
    net = parse_prototxt(
        """
        default_forward_type: FLOAT16
        layer { name: "p" type: "Permute" permute_param { order: 0 order: 2 } }
        layer { name: "b" type: "BN" bn_param { slope_filler { value: 1 } frozen: true engine: CUDNN } }
        layer { name: "c" type: "Convolution" convolution_param { num_output: 2 engine: MKLDNN relu: true } }
        layer { name: "l" type: "SmoothL1Loss" smooth_l1_loss_param { sigma: 3 } loss_param { pre_fixed_normalizer: 2 } }
        layer { name: "t" transform_param { crop_h: 3 multi_scale: true } interp_param { zoom_factor: 8 } }
        """,
        NetParameter,
    )
    found = dict(fork_fields(net))
    assert sorted(found) == [
        "default_forward_type",
        "layer[0].permute_param",
        "layer[1].bn_param",
        "layer[2].convolution_param.relu",
        "layer[3].loss_param.pre_fixed_normalizer",
        "layer[3].smooth_l1_loss_param",
        "layer[4].interp_param",
        "layer[4].transform_param.crop_h",
        "layer[4].transform_param.multi_scale",
    ]
    assert found["default_forward_type"] == "NVIDIA/caffe"
    assert found["layer[1].bn_param"] == "yjxiong/caffe"
    assert found["layer[0].permute_param"].startswith("SSD")
    assert fork_of(caffe_pb2.PriorBoxParameter.DESCRIPTOR.fields_by_name["min_size"]) is not None
    assert fork_of(caffe_pb2.ConvolutionParameter.DESCRIPTOR.fields_by_name["group"]) is None
    solver = parse_prototxt(
        "rampup_lr: 0.1 larc: true warmup_iter: 3 eval_type: 'detection' group_id: 1", SolverParameter
    )
    assert len(list(fork_fields(solver))) == 5


def test_numbers_that_forks_gave_to_other_fields_are_not_read_as_theirs() -> None:
    # NVCaffe's rampup_interval (41, a number) is BVLC's layer_wise_reduce; its forward_type (145) is BVLC's parameter_param.
    solver = SolverParameter.FromString(
        b"\xd0\x02\x01"
    )  # field 42, varint: rampup_lr's neighbour, a string list at BVLC
    assert list(solver.weights) == []
    layer = caffe_pb2.LayerParameter.FromString(b"\x0a\x01x" + b"\x88\x09\x02")  # name: "x", field 145, varint 2
    assert layer.name == "x"
    assert not layer.HasField("parameter_param")


def test_raw_blobs_of_nvcaffe_have_its_numbers() -> None:
    values = np.array([1.5, -2.0], "<f2").tobytes()
    blob = caffe_pb2.BlobProto.FromString(b"\x3a\x03\x0a\x01\x02" + b"\x50\x02" + b"\x62\x04" + values)
    assert blob_to_array(blob).tolist() == [1.5, -2.0]


def test_another_caffe_protobuf_lives_in_the_same_process() -> None:
    file = as_foreign("caffe", "caffe.proto")
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    their_net = message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))
    ours = parse_prototxt('name: "n" layer { name: "a" type: "ReLU" }', NetParameter)
    theirs = their_net.FromString(ours.SerializeToString())
    assert theirs.layer[0].type == "ReLU"
    assert theirs.SerializeToString() == ours.SerializeToString()


def test_ours_loads_after_another_caffe_protobuf(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "caffe.bin").write_bytes(as_foreign("caffe", "caffe.proto").SerializeToString())
    program = (
        "import pathlib, sys; from google.protobuf import descriptor_pool as d;"
        "d.Default().AddSerializedFile(pathlib.Path(sys.argv[1]).read_bytes());"
        "from paratrain.proto import NetParameter; print(NetParameter.DESCRIPTOR.full_name)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "caffe.bin")]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "paratrain.caffe.NetParameter"), done.stderr


def test_generated_code_is_what_the_schema_says(repository: Path) -> None:
    protoc = Path(sys.executable).parent / "protoc"
    if not protoc.exists():
        pytest.skip("no protoc in this environment: pip install 'paratrain[dev]'")
    command = [str(repository / "scripts" / "gen-proto"), "--check"]
    done = subprocess.run(
        command,
        env={"PATH": "/usr/bin:/bin", "PROTOC": str(protoc)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
