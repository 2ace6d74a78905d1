"""Errors in text files: where they are and what they say."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paratrain.errors import PrototxtError
from paratrain.proto import NetParameter, SolverParameter, parse_prototxt, read_prototxt, write_binary

# The place that the error must name is marked by "|" in front of the token.
ERRORS = {
    'name: "a"\nlayer {\n  |nam: "x"\n}': "LayerParameter has no field 'nam'; did you mean 'name'",
    "layer {\n\tconvolution_param { |kernelsize: 3 }\n}": "has no field 'kernelsize'; did you mean 'kernel_size'",
    '|Layer { name: "a" }': "did you mean 'layer' or 'layers'?",
    "layer { |num_output: 3 }": "it belongs inside convolution_param",
    'layer { convolution_param { |top: "x" } }': "LayerParameter, around it, has one: is a '}' missing",
    "layer { |correlation_param { } }": "it is a field of FlowNet",
    "layer { |zzqq: 1 }": "no Caffe that paratrain knows",
    "layer { convolution_param { engine: # why\n  |CUDN } }": "CUDNN, MKL2017, MKLDNN, found 'CUDN'; did you mean CUDNN?",
    "layer { convolution_param { engine: |77 } }": "is one of DEFAULT, CAFFE",
    'layer { convolution_param { engine: |"CUDNN" } }': "write it without quotes: CUDNN",
    'layers { type: |"Convolution" }': "'layers' is the old form",
    "layer { type: |ReLU }": "is text in quotes, found 'ReLU'; write type: \"ReLU\"",
    "layer { convolution_param { num_output: |2.5 } }": "is a whole number from 0 to 4294967295, found '2.5'",
    "layer { convolution_param { num_output: |-2 } }": "found '-2', which is out of range",
    'layer { convolution_param { num_output: |"20" } }': "write it without quotes: 20",
    "layer { loss_weight: |abc }": "'loss_weight' of LayerParameter is a number, found 'abc'",
    "layer { loss_weight: [1, 2, |x] }": "is a number, found 'x'",
    "force_backward: |yes": "is true or false, found 'yes'",
    'name: "a"\n|name: "b"': "'name' is given twice in the same NetParameter",
    "layer { relu_param { }\n |relu_param { } }": "'relu_param' is given twice in the same LayerParameter; put all",
    '|layer {\n  name: "x"\n': "the '{' of 'layer', opened here, is never closed",
    'layer {\n  name: "x"\n  |relu_param {\n negative_slope: 1\n# the end\n': "the '{' of 'relu_param', opened here",
    "layer { |name:": "the file ends after 'name'; expected text in quotes",
    "|layer {": "the '{' of 'layer' is never closed",
    "layer {\n}\n|}": "a '}' with no '{' before it",
    'layer { name |"x" }': "expected ':' and a value after the name",
    'layer { name: |"x }': "whose quote is not closed",
    r'layer { name: |"C:\xz" }': "write \\\\ for a backslash",
    r'layer { name: |"C:\data" }': "write \\\\ for a backslash",
    r"layer { name: |'\777' }": "write \\\\ for a backslash",
    "layer: |3": "is a LayerParameter in braces { }, found '3'",
    "name |{ }": "'name' of NetParameter is text in quotes, found '{'",
    "|@@@": "expected the name of a field of NetParameter, found '@'",
    'name: "a"\n|<<<<<<< HEAD\n': "the mark of a merge conflict",
}


@pytest.mark.parametrize("marked", ERRORS)
def test_error_names_the_place_and_the_way_out(marked: str) -> None:
    before, text = marked.split("|", 1)[0], marked.replace("|", "", 1)
    with pytest.raises(PrototxtError) as caught:
        parse_prototxt(text, NetParameter, "net.prototxt")
    line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
    assert (caught.value.line, caught.value.column) == (line, column), str(caught.value)
    assert str(caught.value).startswith(f"net.prototxt:{line}:{column}: ")
    assert ERRORS[marked] in str(caught.value)


def test_missing_required_field_is_named_by_its_path() -> None:
    with pytest.raises(
        PrototxtError, match=r"net: NetParameter lacks 'layer\[1\].clip_param.max', which must be given"
    ):
        parse_prototxt("layer { } layer { clip_param { min: 1 } }", NetParameter, "net")


def test_what_caffe_accepts_is_accepted() -> None:
    text = """
    name: 'single' # a comment "with quotes
    layer: { top: "a" top: "b", include: { phase: TRAIN }; loss_weight: [1., .5, 1e-3f] }
    layer < name: "one" ' two' relu_param { negative_slope: -0 engine: 1 } >
    force_backward: t
    """
    net = parse_prototxt(text, NetParameter)
    assert net.name == "single"
    assert list(net.layer[0].loss_weight) == pytest.approx([1, 0.5, 1e-3])
    assert net.layer[1].name == "one two"
    assert net.layer[1].relu_param.engine == 1
    assert net.force_backward


def test_escapes() -> None:
    assert parse_prototxt(r"""name: "\t\101\x42\\\"\' \\data" """, NetParameter).name == "\tAB\\\"' \\data"


def test_missing_file_names_file_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PrototxtError) as caught:
        read_prototxt("nets/lenet.prototxt", NetParameter)
    assert str(caught.value).startswith("nets/lenet.prototxt: no such file, looked up from the folder " + str(tmp_path))
    with pytest.raises(PrototxtError, match="this is a folder; expected a SolverParameter as text"):
        read_prototxt(tmp_path, SolverParameter)


def test_files_that_are_no_text_are_called_by_name(tmp_path: Path) -> None:
    write_binary(tmp_path / "weights", parse_prototxt('name: "n" layer { name: "a" type: "ReLU" }', NetParameter))
    files = {
        "weights": "this is a network with weights (caffemodel), not a text file",
        "image": "this is a PNG image",
        "lmdb": "this is the data file of an LMDB database",
        "noise": "this is a binary file of unknown kind",
        "nothing": "the file is empty",
    }
    (tmp_path / "image").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    (tmp_path / "lmdb").write_bytes(bytes(16) + b"\xde\xc0\xef\xbe" + bytes(100))
    (tmp_path / "noise").write_bytes(bytes(range(256)))
    (tmp_path / "nothing").write_bytes(b" \n")
    for name, expected in files.items():
        with pytest.raises(PrototxtError) as caught:
            read_prototxt(tmp_path / name, NetParameter)
        assert str(caught.value).startswith(f"{tmp_path / name}: {expected}"), str(caught.value)
    with pytest.raises(PrototxtError, match="weights are given with --weights"):
        read_prototxt(tmp_path / "weights", NetParameter)


def test_byte_order_mark_and_other_encodings_in_comments_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "bom").write_bytes(b'\xef\xbb\xbfname: "n"')
    (tmp_path / "gbk").write_bytes('# 网络\nname: "n"'.encode("gbk"))
    for name in ("bom", "gbk"):
        assert read_prototxt(tmp_path / name, NetParameter).name == "n"


def test_too_large_a_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as stream:
        stream.truncate(65 * 1024 * 1024)
    with pytest.raises(PrototxtError, match="68,157,440 bytes are too many"):
        read_prototxt(tmp_path / "huge", NetParameter)


WHOLE = """name: "LeNet"  # a comment
layer {
  name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param { lr_mult: 1 } include: { phase: TRAIN }
  convolution_param { num_output: 20 kernel_size: [5, 5] weight_filler { type: 'xavier' } engine: CUDNN bias_term: true }
}
"""


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(WHOLE)), st.integers(0, 30), st.text("{}<>[]:;,#\"'\\ \n-.0aZ_\u00e9", max_size=4))
def test_whatever_is_broken_the_error_is_ours_and_inside_the_file(start: int, cut: int, put: str) -> None:
    text = WHOLE[:start] + put + WHOLE[start + cut :]
    error = error_of(text)
    if error is not None:  # most texts break, some do not
        assert error.line is not None
        assert error.column is not None
        assert 1 <= error.column <= len(text.split("\n")[error.line - 1]) + 1


def error_of(text: str) -> PrototxtError | None:
    try:
        parse_prototxt(text, NetParameter, "f")
    except PrototxtError as error:
        return error
    return None
