from __future__ import annotations

import pytest

from paratrain.errors import SolverError
from paratrain.launch.overrides import override
from paratrain.proto import SolverParameter


def test_fields_are_replaced_and_the_rest_stays() -> None:
    parameter = SolverParameter(base_lr=0.1, lr_policy="step", test_iter=[1, 2, 3], max_iter=7, snapshot_prefix="a b")
    settings = ["base_lr=1e-3", "lr_policy=fixed", "test_iter=4", "test_iter = 5", "solver_mode=CPU"]
    changed = override(parameter, [*settings, 'snapshot_prefix="c d"', "stepvalue=[10, 20]", "debug_info=true"])
    assert changed.base_lr == pytest.approx(1e-3)
    assert (changed.lr_policy, list(changed.test_iter), changed.max_iter) == ("fixed", [4, 5], 7)
    assert (changed.snapshot_prefix, list(changed.stepvalue), changed.debug_info) == ("c d", [10, 20], True)
    assert changed.solver_mode == SolverParameter.CPU
    assert list(parameter.test_iter) == [1, 2, 3]


def test_messages_and_odd_strings() -> None:
    changed = override(SolverParameter(), ['train_state={ stage: "x" level: 2 }', 'net=a "quoted" \\ name'])
    assert (list(changed.train_state.stage), changed.train_state.level) == (["x"], 2)
    assert changed.net == 'a "quoted" \\ name'


def test_an_old_solver_type_is_brought_to_todays_form() -> None:
    assert override(SolverParameter(), ["solver_type=ADAM"]).type == "Adam"


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("momentun=0.9", ["--set momentun=0.9: ", "'momentum'"]),
        ("max_iter=many", ["--set max_iter=many: ", "many"]),
        ("max_iter", ["expected FIELD=VALUE"]),
        ("=3", ["expected FIELD=VALUE"]),
        ("max_iter=", ["expected FIELD=VALUE"]),
        ("max_iter=3 display: 4", ["sets display, max_iter", "of its own"]),
        ("solver_mode=TPU", ["--set solver_mode=TPU: ", "TPU"]),
    ],
)
def test_settings_that_cannot_be(setting: str, parts: list[str]) -> None:
    with pytest.raises(SolverError) as raised:
        override(SolverParameter(), [setting])
    for part in parts:
        assert part in str(raised.value)
