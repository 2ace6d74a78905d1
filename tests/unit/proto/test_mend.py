"""Every mistake of a prototxt in one go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratrain.proto import NetParameter, SolverParameter, format_prototxt, parse_prototxt
from paratrain.proto.mend import layer_at, parse_all, top_level_names
from tests.paths import GOLDEN

TEXT = """\
name: "x"  # a comment: { "quoted
laier { name: "q" inner { a: [1, 2] } }
layer { name: "a" type: "Convolution" typo: 3
  convolution_param { num_output: "x" kernal_size: 3 kernel_size: [3, 5] weight_filler { type: "xav" "ier" std: abc } } }
layer { name: "b" name: "c" type: ReLU bottom: "a"; top: 'a',
  pooling_param < pool: MAXX > dense_crf_param { a: 1 } }
state { phase: TRAINN level: -2 }
"""


def test_every_mistake_is_found_and_the_rest_is_read() -> None:
    net, problems = parse_all(TEXT, NetParameter, "f")
    assert [(problem.line, str(problem).split(": ", 1)[1].split(",")[0].split(";")[0]) for problem in problems] == [
        (2, "NetParameter has no field 'laier'"),
        (3, "LayerParameter has no field 'typo'"),
        (4, "'num_output' of ConvolutionParameter is a whole number from 0 to 4294967295"),
        (4, "ConvolutionParameter has no field 'kernal_size'"),
        (4, "'std' of FillerParameter is a number"),
        (5, "'name' is given twice in the same LayerParameter"),
        (5, "'type' of LayerParameter is text in quotes"),
        (6, "'pool' of PoolingParameter is one of MAX"),
        (6, "LayerParameter has no field 'dense_crf_param'"),
        (7, "'phase' of NetState is one of TRAIN"),
    ]
    assert "DeepLab" in str(problems[8])
    expected = """\
name: "x" state { level: -2 }
layer { name: "a" type: "Convolution"
  convolution_param { kernel_size: 3 kernel_size: 5 weight_filler { type: "xavier" } } }
layer { name: "b" bottom: "a" top: "a" pooling_param { } }
"""
    assert net == parse_prototxt(expected, NetParameter)
    assert [layer_at(TEXT, problem) for problem in problems] == [None, 0, 0, 0, 0, 1, 1, 1, 1, None]
    assert top_level_names(TEXT) == ["name", "laier", "layer", "layer", "state"]


def test_a_brace_too_many_does_not_hide_what_follows() -> None:
    net, problems = parse_all('layer { name: "a" } } = layer { nam: "b" }', NetParameter, "f")
    assert [problem.column for problem in problems] == [21, 23, 33]
    assert net is not None
    assert [layer.name for layer in net.layer] == ["a", ""]


def test_a_brace_that_is_never_closed_ends_the_reading() -> None:
    net, problems = parse_all('laier: 1 layer { name: "a"', NetParameter, "f")
    assert net is None
    assert len(problems) == 2
    assert "never closed" in str(problems[1])


def test_the_number_of_mistakes_is_bounded() -> None:
    net, problems = parse_all("wrong: 1\n" * 200, NetParameter, "f")
    assert net is None
    assert [problem.line for problem in problems] == list(range(1, 51))


@pytest.mark.parametrize("name", ["nets/googlenet.prototxt", "upgrade/v0_lenet_train.prototxt"])
def test_a_good_file_reads_as_ever(name: str) -> None:
    text = (GOLDEN / name).read_text()
    assert parse_all(text, NetParameter, "f") == (parse_prototxt(text, NetParameter), [])


@given(st.text(alphabet="layer{}<>[]:\" \n#namebotm1.5-;,\\'", max_size=60))
def test_any_text_comes_to_an_end_with_a_message_or_a_problem(text: str) -> None:
    net, problems = parse_all(text, NetParameter, "f")
    assert net is not None or problems


@given(st.sampled_from(["base_lr", "momentum", "gamma"]), st.integers(0, 3))
def test_what_is_left_after_mending_reads_without_mistakes(name: str, count: int) -> None:
    text = f"max_iter: 5 {name}: x\n" + "typo { a: 1 }\n" * count + 'lr_policy: "fixed"'
    solver, problems = parse_all(text, SolverParameter, "f")
    assert len(problems) == 1 + count
    assert solver is not None
    assert format_prototxt(solver) == 'max_iter: 5\nlr_policy: "fixed"\n'
