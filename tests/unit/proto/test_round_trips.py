"""Text <-> message <-> binary, for random messages and for the files that Caffe wrote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paratrain.proto import (
    NetParameter,
    SolverParameter,
    SolverState,
    array_to_blob,
    blob_to_array,
    caffe_pb2,
    format_prototxt,
    parse_prototxt,
    read_binary,
    write_binary,
)
from tests.paths import GOLDEN
from tests.unit.proto.messages import messages

TYPES = [NetParameter, SolverParameter, caffe_pb2.LayerParameter, caffe_pb2.V1LayerParameter, caffe_pb2.BlobProto]
quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@pytest.mark.parametrize("message_type", TYPES, ids=lambda message_type: message_type.__name__)
def test_text_reads_back_to_an_equal_message(message_type: type[Message]) -> None:
    @quick
    @given(messages(message_type))
    def check(message: Message) -> None:
        text = format_prototxt(message)
        again = parse_prototxt(text, message_type)
        assert again == message
        assert format_prototxt(again) == text

    check()


@pytest.mark.parametrize("message_type", TYPES, ids=lambda message_type: message_type.__name__)
def test_binary_reads_back_to_an_equal_message(message_type: type[Message], tmp_path: Path) -> None:
    @quick
    @given(messages(message_type).filter(lambda message: message.ByteSize() > 0))
    def check(message: Message) -> None:
        write_binary(tmp_path / "message", message)
        assert read_binary(tmp_path / "message", message_type) == message

    check()
    assert [path.name for path in tmp_path.iterdir()] == ["message"]


@given(st.floats(width=32, allow_nan=False))
def test_floats_have_the_digits_that_caffe_prints(value: float) -> None:
    text = format_prototxt(caffe_pb2.PowerParameter(shift=value))
    digits = text.removeprefix("shift: ").strip().split("e")[0].replace(".", "").strip("-0")
    assert parse_prototxt(text, caffe_pb2.PowerParameter).shift == value
    assert len(digits) <= 9
    assert not text.endswith(".0\n")


def golden_files(*patterns: str) -> list[Path]:
    return sorted(path for pattern in patterns for path in GOLDEN.glob(pattern))


@pytest.mark.skipif(not golden_files("solvers/*.caffemodel"), reason=f"no caffemodels at {GOLDEN / 'solvers'}")
def test_caffes_own_files_are_written_byte_for_byte(tmp_path: Path) -> None:
    for path in golden_files("solvers/*.caffemodel", "solvers/*.solverstate"):
        message_type = NetParameter if path.suffix == ".caffemodel" else SolverState
        message = read_binary(path, message_type)
        write_binary(tmp_path / path.name, message)
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
        blobs = (
            [blob for layer in message.layer for blob in layer.blobs]
            if path.suffix == ".caffemodel"
            else message.history
        )
        assert blobs
        for blob in blobs:
            assert array_to_blob(blob_to_array(blob)) == blob, path.name


@pytest.mark.skipif(not (GOLDEN / "log/caffe_train.log").exists(), reason=f"no log at {GOLDEN / 'log'}")
def test_messages_look_as_in_caffes_log() -> None:
    log = (GOLDEN / "log/caffe_train.log").read_text()
    shown = re.findall(r"Initializing (solver|net) from parameters: \n(.*?)(?=^I\d{4} )", log, re.DOTALL | re.MULTILINE)
    assert [kind for kind, _ in shown] == ["solver", "net", "net"]
    for kind, text in shown:
        assert format_prototxt(parse_prototxt(text, SolverParameter if kind == "solver" else NetParameter)) == text


@pytest.mark.skipif(not golden_files("**/*.prototxt"), reason=f"no prototxt files under {GOLDEN}")
def test_every_golden_text_reads_back() -> None:
    for path in golden_files("**/*.prototxt"):
        message_type: type[Message] = SolverParameter if ".solver." in path.name else NetParameter
        message = parse_prototxt(path.read_text(), message_type, str(path))
        assert parse_prototxt(format_prototxt(message), message_type) == message, path
