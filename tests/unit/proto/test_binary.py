"""Binary files and blobs: what is read, and what the errors say."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratrain.errors import SnapshotError
from paratrain.proto import (
    BlobProto,
    BlobShape,
    Datum,
    NetParameter,
    SolverState,
    array_to_blob,
    blob_shape,
    blob_to_array,
    caffe_pb2,
    describe_content,
    read_binary,
    write_atomically,
    write_binary,
)
from paratrain.proto.wire import encode_length_delimited, fields


def net_with_weights() -> NetParameter:
    net = NetParameter(name="n")
    layer = net.layer.add(name="ip", type="InnerProduct")
    array_to_blob(np.arange(600, dtype=np.float32), layer.blobs.add())
    return net


def test_wrong_files_are_called_by_name(tmp_path: Path) -> None:
    state = SolverState(iter=3, learned_net="x.caffemodel")
    array_to_blob(np.ones(3), state.history.add())
    whole = net_with_weights().SerializeToString()
    contents = {
        b"": "expected a NetParameter, found an empty file",
        b'name: "LeNet"\n': "expected a NetParameter, found a text file",
        b"\x89HDF\r\n\x1a\n" + bytes(20): "expected a NetParameter, found an HDF5 file",
        bytes(16) + b"\xde\xc0\xef\xbe" + bytes(9): "found the data file of an LMDB database",
        state.SerializeToString(): "expected a NetParameter, found the state of a solver",
        whole[:-1000]: f"cut off: {len(whole) - 1000:,} bytes are there and at least 1,000 are missing",
        bytes(range(256)): "found a binary file of unknown kind (it is not in protobuf's binary format",
    }
    for index, (data, expected) in enumerate(contents.items()):
        path = tmp_path / str(index)
        path.write_bytes(data)
        with pytest.raises(SnapshotError) as caught:
            read_binary(path, NetParameter)
        assert expected in str(caught.value), str(caught.value)
        assert str(caught.value).startswith(str(path))


def test_missing_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        SnapshotError, match=rf"x.caffemodel: no such file .looked up from {tmp_path}.; expected a NetParameter"
    ):
        read_binary("x.caffemodel", NetParameter)
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / "data.mdb").touch()
    with pytest.raises(SnapshotError, match=r"db: is a folder .an LMDB database.; expected a file that holds a Datum"):
        read_binary("db", Datum)


def test_more_than_two_gib_are_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as stream:
        stream.truncate(2**31)
    with pytest.raises(SnapshotError, match=r"2,147,483,648 bytes.*snapshot_format: HDF5"):
        read_binary(tmp_path / "huge", NetParameter)


def test_more_than_two_gib_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SnapshotError, match=r"an array of 2,147,483,648 bytes.*snapshot_format: HDF5"):
        array_to_blob(np.broadcast_to(np.float32(0), 2**29))
    # A smaller limit stands for the real one.
    monkeypatch.setattr("paratrain.proto.binary.LARGEST_BYTES", 1000)
    with pytest.raises(SnapshotError, match=r"a NetParameter of 2,\d+ bytes.*at most 1,000.*snapshot_format: HDF5"):
        write_binary(tmp_path / "x", net_with_weights())
    assert list(tmp_path.iterdir()) == []


def test_unknown_fields_of_forks_are_kept(tmp_path: Path) -> None:
    data = net_with_weights().SerializeToString() + encode_length_delimited(9999, b"a fork's")
    (tmp_path / "fork").write_bytes(data)
    net = read_binary(tmp_path / "fork", NetParameter)
    assert net.name == "n"
    assert net.SerializeToString() == data


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights"
    write_binary(path, net_with_weights())
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(SnapshotError, match=r"weights: cannot be written \(No space left on device\); 3 bytes"):
        write_atomically(path, b"new")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(SnapshotError, match="No such file or directory"):
        write_binary(tmp_path / "no" / "folder", net_with_weights())


def test_incomplete_messages_are_not_written(tmp_path: Path) -> None:
    net = NetParameter()
    net.layer.add().clip_param.min = 1
    with pytest.raises(SnapshotError, match=r"lacks required fields: layer\[0\].clip_param.max"):
        write_binary(tmp_path / "x", net)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4, 5), (1, 1, 2, 1, 3)])
def test_arrays_come_back_with_shape_type_and_bits(shape: tuple[int, ...], dtype: type) -> None:
    array = np.random.default_rng(1).normal(size=shape).astype(dtype)
    blob = array_to_blob(array, diff=-2 * array)
    data, diff = blob_to_array(blob), blob_to_array(blob, "diff")
    assert data.shape == shape
    assert data.tobytes() == array.tobytes()
    assert diff.tobytes() == (-2 * array).tobytes()
    assert data.flags.writeable
    assert data.flags.aligned
    assert data.flags.c_contiguous
    if array.size:
        assert data.dtype == dtype
        # ... and protobuf sees the same numbers one by one.
        assert list(blob.data or blob.double_data) == array.ravel().tolist()
        assert blob == BlobProto(
            shape=BlobShape(dim=shape),
            **{("data" if dtype is np.float32 else "double_data"): array.ravel().tolist()},
            **{("diff" if dtype is np.float32 else "double_diff"): (-2 * array).ravel().tolist()},
        )


def test_an_existing_blob_is_replaced() -> None:
    blob = array_to_blob(np.ones((2, 2)), diff=np.ones((2, 2)))
    assert array_to_blob(np.asfortranarray(np.arange(6).reshape(2, 3)), blob) is blob
    assert blob_to_array(blob).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not blob.double_data
    assert not blob.double_diff
    with pytest.raises(ValueError, match=r"diff's shape \(3,\) is not the data's \(2,\)"):
        array_to_blob(np.ones(2), diff=np.ones(3))


def test_old_blobs_have_four_axes() -> None:
    blob = BlobProto(num=1, channels=2, height=1, width=3, data=range(6))
    assert blob_shape(blob) == (1, 2, 1, 3)
    assert blob_to_array(blob).tolist() == [[[[0, 1, 2]], [[3, 4, 5]]]]


@pytest.mark.parametrize(
    ("raw_type", "stored", "expected"),
    [
        (caffe_pb2.FLOAT16, "<f2", np.float32),
        (caffe_pb2.FLOAT, "<f4", np.float32),
        (caffe_pb2.DOUBLE, "<f8", np.float64),
        (caffe_pb2.INT, "<i4", np.float32),
    ],
)
def test_raw_blobs_of_nvcaffe(raw_type: caffe_pb2.Type, stored: str, expected: type) -> None:
    values = np.array([[1, -2, 3]], stored)
    blob = BlobProto(shape=BlobShape(dim=[1, 3]), raw_data_type=raw_type, raw_data=values.tobytes())
    found = blob_to_array(blob)
    assert found.dtype == expected
    assert found.tolist() == [[1, -2, 3]]
    assert found.flags.writeable
    blob.raw_data += b"x"
    with pytest.raises(SnapshotError, match="no multiple of"):
        blob_to_array(blob)


def test_values_that_do_not_fill_the_shape() -> None:
    blob = BlobProto(shape=BlobShape(dim=[2, 3]), data=[1, 2, 3])
    with pytest.raises(SnapshotError, match="of shape 2 3 should have 6 values in 'data' and has 3"):
        blob_to_array(blob)
    with pytest.raises(SnapshotError, match="should have 6 values in 'diff' and has 0"):
        blob_to_array(blob, "diff")
    with pytest.raises(SnapshotError, match=r"no axes .one value. should have 1 values in 'data' and has 0"):
        blob_to_array(BlobProto())
    with pytest.raises(SnapshotError, match="of shape -2 -3"):
        blob_to_array(BlobProto(shape=BlobShape(dim=[-2, -3]), data=range(6)))


@given(st.lists(st.tuples(st.integers(1, 2**28), st.binary(max_size=300))))
def test_wire_fields_are_found_again(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(encode_length_delimited(number, value) for number, value in pairs)
    found = [(field.number, data[field.start : field.stop]) for field in fields(data)]
    assert found == pairs


@given(st.binary(max_size=200))
def test_any_bytes_are_described_and_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    assert describe_content(data).startswith(("a ", "an ", "the ", "several "))
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    with contextlib.suppress(SnapshotError):
        assert isinstance(read_binary(path, NetParameter), NetParameter)
