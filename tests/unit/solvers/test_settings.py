"""Settings that cannot be right are refused before anything is trained."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from paratrain.backends import create_backend
from paratrain.errors import PrototxtError, SnapshotError, SolverError, UnknownNameError
from paratrain.proto import SolverParameter, parse_prototxt
from paratrain.solvers import SOLVERS, create_solver, read_solver
from paratrain.solvers.checks import check_parameter
from paratrain.solvers.nets import test_net_choices as choose_test_nets
from paratrain.solvers.nets import train_net_choice
from tests.unit.solvers.least_squares import make_solver, random_records

SGD = 'base_lr: 0.1 lr_policy: "fixed" '
NET = "net_param { name: 'own' } "


def solver(text: str) -> SolverParameter:
    return parse_prototxt(text, SolverParameter)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SGD, "exactly one of net, net_param, train_net, train_net_param; this one gives none"),
        (SGD + 'net: "a" train_net: "b"', "gives net and train_net"),
        (SGD + 'net: "a" train_net_param {} net_param {}', "gives net and net_param and train_net_param"),
    ],
)
def test_one_field_names_the_net_to_train(text: str, message: str) -> None:
    with pytest.raises(SolverError, match=message):
        train_net_choice(solver(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("iter_size: 0", "iter_size is 0; it must be 1 or more"),
        ("average_loss: 0", "average_loss is 0"),
        ("max_iter: -5", "max_iter is -5"),
        ("display: -1", "display is -1"),
        ("snapshot: -1", "snapshot is -1"),
        ("clip_gradients: 0", "clip_gradients is 0"),
        ("clip_gradients: nan", "clip_gradients is nan"),
        ('regularization_type: "L3"', "'L3'; known: L1, L2"),
        ("snapshot: 10", "no snapshot_prefix"),
        ('lr_policy: "poly"', "needs power and max_iter"),
        ("test_offset: 100", "test_offset is a field of intel/caffe"),
        ("max_epoch: 100", "max_epoch is a field of NVIDIA/caffe"),
        ("delta: -1", "delta is -1"),
        ("delta: nan", "delta is nan"),
        ("base_lr: -0.1", "base_lr is -0.1; it must be 0 or more, and finite"),
        ("base_lr: inf", "base_lr is inf"),
        ("momentum: -0.5", "momentum is -0.5"),
        ("momentum: nan", "momentum is nan"),
        ("weight_decay: -1", "weight_decay is -1"),
        ("weight_decay: inf", "weight_decay is inf"),
        ("stepsize: -10", "stepsize is -10"),
    ],
)
def test_values_that_have_no_meaning(text: str, message: str) -> None:
    parameter = solver(SGD)
    parameter.MergeFrom(solver(text))
    with pytest.raises(SolverError, match=message):
        check_parameter(parameter)


def test_fields_of_forks_that_change_nothing_are_left_out(tmp_path: Path, log_lines: list[str]) -> None:
    settings = SGD + "show_per_class_result: true engine: 'CAFFE' "
    make_solver(random_records(tmp_path), settings).close()
    found = [line for line in log_lines if "is left out" in line]
    assert [line.split()[2] for line in found] == ["show_per_class_result", "engine"]


@pytest.mark.parametrize("kind", ["AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_a_delta_of_0_would_divide_0_by_0(tmp_path: Path, kind: str) -> None:
    with pytest.raises(SolverError, match=f"delta is 0, and solver type {kind} divides"):
        make_solver(random_records(tmp_path), SGD + f"type: '{kind}' delta: 0")


@pytest.mark.parametrize("settings", ["", "test_interval: 5"])
def test_a_test_interval_without_a_test_is_warned_of(tmp_path: Path, settings: str, log_lines: list[str]) -> None:
    make_solver(random_records(tmp_path), SGD + settings).close()
    found = [line for line in log_lines if line.startswith("Nothing will be tested")]
    assert found == (
        ["Nothing will be tested: test_interval is 5, and no test_iter says how many batches to test"]
        if settings
        else []
    )


def test_an_unknown_type_names_the_nearest() -> None:
    parameter = solver(SGD + NET + 'type: "SDG"')
    with pytest.raises(UnknownNameError, match="unknown solver type 'SDG'; did you mean 'SGD'"):
        create_solver(parameter, backend=create_backend())
    assert "SGD" in SOLVERS


def test_an_unknown_policy_is_found_when_the_solver_is_built(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown learning-rate policy 'stairs'"):
        make_solver(random_records(tmp_path), 'base_lr: 0.1 lr_policy: "stairs"')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("test_iter: 1 test_iter: 2 test_interval: 5 train_net_param {}", "given 2 times for 0 test nets"),
        ("test_net_param {} test_interval: 5 " + NET, "given 0 times for 1 test nets"),
        ("test_net_param {} test_net: 'a' test_iter: 1 test_interval: 5 " + NET, "given 1 times for 2 test nets"),
        (
            "test_iter: 1 test_state {} test_state {} test_interval: 5 " + NET,
            "test_state is given 2 times for 1 test nets",
        ),
        ("test_iter: 1 " + NET, "test_interval is 0"),
        ("test_iter: 0 test_interval: 5 " + NET, "test_iter must be above 0"),
    ],
)
def test_the_counts_of_test_nets_must_fit(text: str, message: str) -> None:
    with pytest.raises(SolverError, match=message):
        choose_test_nets(solver(text))


def test_test_nets_come_in_caffes_order() -> None:
    parameter = solver(
        "test_net: 'file' test_net_param { name: 'first' } test_iter: [1, 2, 3, 4] test_interval: 5 "
        "test_state { stage: 'a' } test_state { stage: 'b' } test_state { stage: 'c' } test_state { level: 2 } " + NET
    )
    choices = choose_test_nets(parameter)
    assert [choice.source for choice in choices] == ["test_net_param", "test_net file: file", "net_param", "net_param"]
    assert choices[0].parameter().name == "first"
    assert [choices[2].parameter().name, choices[3].parameter().name] == ["own", "own"]
    assert [list(choice.state.stage) for choice in choices] == [["a"], ["b"], ["c"], []]
    assert choices[3].parameter().state.level == 2


def test_states_of_the_net_and_the_solver_come_together() -> None:
    parameter = solver(SGD + "net_param { state { stage: 'deep' level: 1 } } train_state { stage: 'wide' }")
    state = train_net_choice(parameter).parameter().state
    assert (list(state.stage), state.level) == (["deep", "wide"], 1)


def test_a_missing_net_is_named_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    parameter = solver(SGD + 'net: "models/none.prototxt"')
    with pytest.raises(PrototxtError) as caught:
        create_solver(parameter, backend=create_backend())
    assert "models/none.prototxt" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "'net' of the solver" in str(caught.value)


def test_ranks_need_one_seed(tmp_path: Path) -> None:
    source = random_records(tmp_path)
    with pytest.raises(SolverError, match="same random numbers"):
        make_solver(source, SGD + "random_seed: -1", size=2)
    make_solver(source, SGD + "random_seed: -1").close()


def test_a_snapshot_folder_that_is_missing_is_found_at_once(tmp_path: Path) -> None:
    source = random_records(tmp_path)
    settings = SGD + f'max_iter: 5 snapshot_prefix: "{tmp_path}/none/line" '
    with pytest.raises(SnapshotError, match=r"none: the folder for snapshots does not exist"):
        make_solver(source, settings + "snapshot: 3")
    trained = make_solver(source, settings)
    trained.parameter.snapshot_after_train = True
    with pytest.raises(SnapshotError, match="does not exist"):
        trained.solve()
    assert trained.iter == 0
    trained.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_snapshot_folder_that_cannot_be_written_is_found_at_once(tmp_path: Path) -> None:
    source = random_records(tmp_path)
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    with pytest.raises(SnapshotError, match="cannot be written"):
        make_solver(source, SGD + f'snapshot: 3 snapshot_prefix: "{folder}/line"')


def test_the_snapshot_prefix_comes_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "line.solver.prototxt"
    file.write_text(SGD)
    assert read_solver(file).snapshot_prefix == f"{tmp_path}/line.solver"
    file.write_text(SGD + f'snapshot_prefix: "{tmp_path}"')
    assert read_solver(file).snapshot_prefix == f"{tmp_path}/line.solver"
    file.write_text(SGD + 'snapshot_prefix: "here"')
    assert read_solver(file).snapshot_prefix == "here"
