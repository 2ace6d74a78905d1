"""Include and exclude rules."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paratrain.errors import NetError
from paratrain.proto import TEST, TRAIN, NetParameter, NetState, NetStateRule, filter_net, parse_prototxt, read_prototxt
from tests.paths import GOLDEN


def kept(text: str, state: NetState) -> list[str]:
    return [layer.name for layer in filter_net(parse_prototxt(text, NetParameter), state).layer]


RULES = """
layer { name: "all" }
layer { name: "train" include { phase: TRAIN } }
layer { name: "not_train" exclude { phase: TRAIN } }
layer { name: "low" include { max_level: 1 } }
layer { name: "high" include { min_level: 2 } }
layer { name: "deploy" include { stage: "deploy" } }
layer { name: "deploy_fast" include { stage: "deploy" stage: "fast" } }
layer { name: "not_deploy" include { not_stage: "deploy" } }
layer { name: "either" include { phase: TRAIN } include { stage: "deploy" } }
layer { name: "neither" exclude { phase: TRAIN } exclude { stage: "deploy" } }
layer { name: "anything" include { } }
"""


@pytest.mark.parametrize(
    ("state", "names"),
    [
        (NetState(phase=TRAIN), "all train low not_deploy either anything"),
        (NetState(phase=TEST), "all not_train low not_deploy neither anything"),
        (NetState(phase=TEST, level=2, stage=["deploy"]), "all not_train high deploy either anything"),
        (NetState(phase=TRAIN, level=1, stage=["fast", "deploy"]), "all train low deploy deploy_fast either anything"),
        (NetState(), "all not_train low not_deploy neither anything"),
    ],
)
def test_rules_of_phase_level_and_stage(state: NetState, names: str) -> None:
    assert kept(RULES, state) == names.split()


def test_both_kinds_of_rules_are_an_error() -> None:
    with pytest.raises(NetError, match=r"layer 'x' \(ReLU\) has include rules and exclude rules"):
        kept(
            'layer { name: "x" type: "ReLU" include { phase: TRAIN } exclude { level: 1 } }'.replace(
                "level", "min_level"
            ),
            NetState(),
        )


def test_the_net_is_not_changed_and_its_other_fields_stay() -> None:
    net = parse_prototxt('name: "n" force_backward: true layer { include { phase: TEST } }', NetParameter)
    before = net.SerializeToString()
    filtered = filter_net(net, NetState(phase=TRAIN))
    assert (filtered.name, filtered.force_backward, len(filtered.layer)) == ("n", True, 0)
    assert net.SerializeToString() == before


def test_reasons_are_reported() -> None:
    reasons: list[str] = []
    net = parse_prototxt(RULES, NetParameter)
    filter_net(net, NetState(phase=TRAIN, stage=["deploy"], level=5), reasons.append)
    assert reasons == [
        "The NetState level (5) is above the max_level (1) specified by a rule in layer low",
        "The NetState did not contain stage 'fast' specified by a rule in layer deploy_fast",
        "The NetState contained a not_stage 'deploy' specified by a rule in layer not_deploy",
    ]


@pytest.mark.skipif(not (GOLDEN / "log/caffe_train.log").exists(), reason=f"no log at {GOLDEN / 'log'}")
def test_reasons_are_worded_as_in_caffes_log() -> None:
    logged = re.findall(r"\] (The NetState .*)", (GOLDEN / "log/caffe_train.log").read_text())
    assert logged[:2] == [
        "The NetState phase (0) differed from the phase (1) specified by a rule in layer mnist",
        "The NetState phase (0) differed from the phase (1) specified by a rule in layer accuracy",
    ]
    net = read_prototxt(GOLDEN / "nets/lenet.prototxt", NetParameter)
    reasons: list[str] = []
    filter_net(net, NetState(phase=TRAIN), reasons.append)
    assert logged[1] in reasons


words = st.lists(st.sampled_from("abc"), max_size=2)
rules = st.builds(
    NetStateRule,
    phase=st.sampled_from([None, TRAIN, TEST]),
    min_level=st.sampled_from([None, 0, 1, 2]),
    max_level=st.sampled_from([None, 0, 1, 2]),
    stage=words,
    not_stage=words,
)
states = st.builds(NetState, phase=st.sampled_from([TRAIN, TEST]), level=st.integers(0, 2), stage=words)


def plainly_meets(state: NetState, rule: NetStateRule) -> bool:
    return (
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or state.level >= rule.min_level)
        and (not rule.HasField("max_level") or state.level <= rule.max_level)
        and set(rule.stage) <= set(state.stage)
        and not set(rule.not_stage) & set(state.stage)
    )


@given(st.lists(rules, max_size=3), states)
def test_include_and_exclude_are_opposites(some: list[NetStateRule], state: NetState) -> None:
    included, excluded = NetParameter(), NetParameter()
    included.layer.add(include=some)
    excluded.layer.add(exclude=some)
    meets = any(plainly_meets(state, rule) for rule in some)
    assert len(filter_net(included, state).layer) == (meets or not some)
    assert len(filter_net(excluded, state).layer) == (not meets)
