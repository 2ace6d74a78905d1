"""`paratrain topology` as a user runs it: every option, files that go round, and a quick start."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from paratrain.topology.costs.cluster import Cluster
from paratrain.topology.costs.training_step import StepWork, predict_step
from paratrain.topology.machine import CpuRank, Machine
from paratrain.topology.planner import plan_ranks
from paratrain.topology.words import duration
from tests.integration.cli import COMMAND, ENVIRONMENT, SMALL_NET, error, paratrain, paratrain_here
from tests.paths import DATA

TEXTS = DATA / "topology"
DGX1 = str(TEXTS / "v100_sxm2_8gpu_indented_by_two.txt")
HEAVY = {
    "numpy",
    "google.protobuf",
    "mpi4py",
    "lmdb",
    "h5py",
    "cv2",
    "cupy",
    "pynvml",
    "matplotlib",
    "tqdm",
    "xml.etree",
}


def shown(*arguments: str) -> str:
    done = paratrain_here(Path.cwd(), "topology", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def values(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shown(*arguments, "--json"))
    return found


def test_only_what_is_needed_is_imported() -> None:
    script = f"""
import sys
from paratrain.launch.cli import main
assert main(["topology", "--from", {DGX1!r}]) == 0
print(*sorted(sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    imported = set(done.stderr.split())
    assert "paratrain.topology.planning.plan" in imported
    assert not imported & HEAVY
    assert not {name for name in imported if name.startswith(("paratrain.comm", "paratrain.net", "paratrain.proto"))}


@pytest.mark.parametrize("option", ["--json", "-json"])
def test_json_alone_on_standard_output(option: str) -> None:
    cut = str(TEXTS / "dgx_a100_8gpu_12nic_nps4_TRUNCATED.txt")
    done = paratrain(Path.cwd(), "topology", "-from", cut, option)
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["warnings"] and all(line.startswith("warning T") for line in done.stderr.splitlines())
    assert len(done.stderr.splitlines()) == len(found["warnings"])


def test_a_saved_plan_is_shown_as_it_was_saved(tmp_path: Path) -> None:
    plan = str(tmp_path / "plan.json")
    options = ("--from", DGX1, "--tree", "star", "--root", "5", "--bytes", "3M", "--bytes", "1k", "--gpus", "1,5,7")
    first = values(*options, "--save", plan)
    assert json.loads(Path(plan).read_text()) == first
    again = values("--from", plan)
    assert again.pop("source") == f"{first.pop('source')}, saved in {plan}"
    assert again == first
    assert (first["tree"]["shape"], first["tree"]["root"], first["wanted"]["bytes"]) == ("star", 5, [3_000_000, 1000])
    other = values("--from", plan, "--tree", "chain", "--bytes", "5k")
    assert (other["tree"]["shape"], other["tree"]["root"], other["wanted"]["bytes"]) == ("chain", 5, [5000])
    assert values("--from", plan, "--gpus", "7,1")["tree"]["edges"][0].keys() == first["tree"]["edges"][0].keys()


def test_standard_input_takes_saved_plans_too(monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps(values("--machine", "k80-2-boards")).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert values("--from", "-")["source"].endswith(", saved in standard input")


def test_several_sizes_and_the_gradients_of_a_net(tmp_path: Path, mnist_folder: Path) -> None:
    for name in ("mnist_train_lmdb", "mnist_test_lmdb"):
        (tmp_path / name).symlink_to(mnist_folder / name)
    (tmp_path / "net.prototxt").write_text(SMALL_NET)
    done = paratrain_here(tmp_path, "topology", "--ranks", "2", "--model", "net.prototxt", "--bytes", "1k", "--json")
    sizes = [one["bytes"] for one in json.loads(done.stdout)["predictions"]]
    # conv1 8x1x5x5 + 8, ip1 32x288 + 32, ip2 10x32 + 10 float32 numbers
    assert list(dict.fromkeys(sizes)) == [4 * (8 * 25 + 8 + 32 * 288 + 32 + 10 * 32 + 10), 1000]
    (tmp_path / "bad.prototxt").write_text('layer { name: "a" type: "Nothing" }')
    done = paratrain_here(tmp_path, "topology", "--ranks", "2", "--model", "bad.prototxt")
    assert error(done).startswith("--model bad.prototxt: cannot tell the size of the gradients: ")


def test_all_methods_side_by_side() -> None:
    lines = shown("--machine", "a100-pcie-8-bridged", "--compare", "--bytes", "100M", "--bytes", "10k").splitlines()
    start = lines.index("Predicted for one exchange, up and down:")
    table = lines[start + 1 : -1]
    assert table[0].split() == ["method", "10", "kB", "100", "MB"]
    assert sum("*" in line for line in table) in (1, 2)
    assert any(line.strip().startswith("ring ") for line in table)
    found = values("--machine", "a100-pcie-8-bridged", "--compare", "--bytes", "100M", "--bytes", "10k")["predictions"]
    for count in (10_000, 100_000_000):
        column = [one for one in found if one["bytes"] == count]
        best = [one for one in column if one["best"]]
        assert len(best) == 1 and len(column) > 5
        assert all(
            best[0]["reduce_s"] + best[0]["broadcast_s"] <= one["reduce_s"] + one["broadcast_s"] for one in column
        )


def test_several_nodes_and_their_network() -> None:
    found = values("--machine", "caffe-4x-pcie", "--nodes", "3", "--tree", "tree")
    assert (found["nodes"], len(found["gpus"]), len(found["tree"]["edges"])) == (3, 4, 11)
    across = [edge for edge in found["tree"]["edges"] if edge["class"] == "NET"]
    assert len(across) == 2 and all(edge["transport"] == "mpi" for edge in across)
    assert all(edge["parent"] // 4 != edge["child"] // 4 for edge in across)
    faster = values("--machine", "caffe-4x-pcie", "--nodes", "3", "--tree", "tree", "--network", "25")
    assert {edge["gbps"] for edge in faster["tree"]["edges"] if edge["class"] == "NET"} == {25.0}
    assert faster["network"]["source"] == "given"
    text = shown("--machine", "caffe-4x-pcie", "--nodes", "3")
    assert text.startswith("3 nodes of 4 GPUs (source: ") and "node 2 GPU3" in text
    assert "level 1: " in shown("--machine", "hgx-h100", "--nodes", "128")
    assert error(paratrain_here(Path.cwd(), "topology", "--machine", "dgx2", "--nodes", "2", "--root", "1")).startswith(
        "--root 1: with --nodes the root is chosen on the first node"
    )


def test_a_plan_of_several_nodes_goes_round(tmp_path: Path) -> None:
    plan = str(tmp_path / "nodes.json")
    first = values("--machine", "k80-2-boards", "--nodes", "2", "--network", "3", "--save", plan)
    again = values("--from", plan)
    assert (again["nodes"], again["tree"]["root"], len(again["tree"]["edges"])) == (2, first["tree"]["root"], 7)
    assert [(edge["parent"], edge["child"]) for edge in again["tree"]["edges"]] == [
        (edge["parent"], edge["child"]) for edge in first["tree"]["edges"]
    ]
    assert values("--from", plan, "--nodes", "1")["nodes"] == 1


def test_simulated_times_stand_beside_the_formula() -> None:
    options = ("--machine", "hgx-h100", "--nodes", "2", "--bytes", "10M", "--simulate")
    found = values(*options)["simulations"]
    assert found[0]["reduce_s"] > 0 and found[0]["transfers"] >= 30
    assert "Simulated for 10 MB, transfer by transfer:" in shown(*options).splitlines()
    too_many = values("--machine", "hgx-h100", "--nodes", "200", "--bytes", "10G", "--simulate")["simulations"]
    assert [one["reduce_s"] for one in too_many if one["transfers"] > 200_000] == [None] * len(
        [one for one in too_many if one["transfers"] > 200_000]
    )


def test_pictures(tmp_path: Path) -> None:
    picture = tmp_path / "box.svg"
    done = paratrain_here(tmp_path, "topology", "--from", DGX1, "--dot", "--svg", str(picture))
    assert (done.returncode, done.stderr) == (0, f"written to {picture}\n")
    assert done.stdout.startswith("digraph topology {\n") and done.stdout.endswith("}\n")
    assert ElementTree.parse(picture).getroot().get("width") == "600"
    nowhere = str(tmp_path / "none" / "box.svg")
    assert error(paratrain_here(tmp_path, "topology", "--from", DGX1, "--svg", nowhere)).endswith(
        f"{nowhere}: No such file or directory"
    )


def test_warnings_fail_only_where_asked() -> None:
    cut = str(TEXTS / "dgx_a100_8gpu_12nic_nps4_TRUNCATED.txt")
    for options, code in (((), 0), (("--strict",), 3), (("-strict", "--json"), 3), (("--strict", "--dot"), 3)):
        assert paratrain_here(Path.cwd(), "topology", "--from", cut, *options).returncode == code
    assert paratrain_here(Path.cwd(), "topology", "--machine", "dgx1-v100", "--strict").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--nodes", "0"), "'0' is no whole number from 1 on"),
        (("--ranks", "x"), "'x' is no whole number from 1 on"),
        (("--network", "-3"), "'-3' is no bandwidth"),
        (("--network", "1e-320"), "'1e-320' is no bandwidth"),
        (("--tree", "oak"), "invalid choice: 'oak'"),
        (("--json", "--dot"), "not allowed with argument"),
        (("--machine", "dgx2", "--ranks", "2"), "not allowed with argument"),
        (("--fro", "x"), "unrecognized arguments"),
    ],
)
def test_commands_that_cannot_be_understood(arguments: tuple[str, ...], message: str) -> None:
    done = paratrain_here(Path.cwd(), "topology", *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def on_terminal(**environment: str) -> str:
    """What the command writes to a terminal."""
    leader, follower = pty.openpty()
    command = [*COMMAND, "topology", "--machine", "k80-2-boards"]
    surroundings = {name: value for name, value in ENVIRONMENT.items() if name not in ("NO_COLOR", "LC_ALL")}
    process = subprocess.Popen(command, env=surroundings | environment, stdout=follower)
    os.close(follower)
    output = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        output += piece
    os.close(leader)
    assert process.wait(60) == 0
    return output.decode()


def test_colours_and_box_lines_on_a_terminal_that_has_them() -> None:
    full = on_terminal(TERM="xterm", PYTHONIOENCODING="utf-8")
    assert "\x1b[" in full and "└── GPU" in full
    assert "\x1b[" not in on_terminal(TERM="xterm", PYTHONIOENCODING="utf-8", NO_COLOR="1")
    assert "\x1b[" not in on_terminal(TERM="dumb", PYTHONIOENCODING="utf-8")
    assert on_terminal(TERM="xterm", PYTHONIOENCODING="ascii").isascii()
    assert shown("--machine", "k80-2-boards").isascii()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ranks", "1025"], "'1025' is more than can be planned for: 1,024 at most"),
        (["--nodes", "9" * 5000], "is more than can be planned for: 8,192 at most"),
        (["--ranks", "9", "--nodes", "8192"], "8,192 nodes with 73,728 ranks are more than can be planned for: 65,536"),
    ],
)
def test_more_than_can_be_planned_for_is_refused(options: list[str], said: str) -> None:
    done = paratrain_here(Path.cwd(), "topology", *options)
    assert done.returncode in (1, 2)
    assert said in done.stderr


def test_a_tree_of_ranks_over_several_nodes_is_made_of_messages() -> None:
    edges = json.loads(shown("--ranks", "2", "--nodes", "2", "--json"))["tree"]["edges"]
    assert {edge["transport"] for edge in edges} == {"mpi"}
    edges = json.loads(shown("--ranks", "4", "--json"))["tree"]["edges"]
    assert {edge["transport"] for edge in edges} == {"shared"}


def test_ranks_on_cores_see_what_the_automatic_exchange_compares() -> None:
    """One node, and two; the time in the last column is the sum of the others."""
    for options, ranks, part in ((("--ranks", "4"), 4, 1 << 20), (("--ranks", "2", "--nodes", "2"), 4, 1 << 17)):
        lines = shown(*options, "--bytes", "8M").partition("Predicted for a training step with 8 MB of parameters")[2]
        rows = {line[4:].split()[0]: line for line in lines.splitlines()[2:]}
        assert list(rows) == ["tree", "sharded", "ring", "mpi"]
        assert [name for name, line in rows.items() if line.startswith("  * ")] == ["sharded"]
        nodes = [Machine(cpu_ranks=tuple(map(CpuRank, range(ranks // count)))) for count in (len(options) // 2,)]
        cluster = Cluster(tuple(nodes * (len(options) // 2)))
        found = predict_step("sharded", cluster, plan_ranks([0] * 4), StepWork(8_000_000, 4 * part * 4))
        assert rows["sharded"].endswith(duration(found.total_s))
    assert "training step" not in shown("--machine", "hgx-a100")  # GPUs exchange otherwise
