from __future__ import annotations

import json

import pytest

from paratrain.errors import TopologyError
from paratrain.topology import resources
from paratrain.topology.known_machines import known_machine, machine_names
from paratrain.topology.link_figures import LinkFigure, network_figure
from paratrain.topology.machine import CpuRank, Gpu, Link, LinkClass, LinkKind, Machine, gpu_list
from paratrain.topology.words import duration, size
from tests.paths import REPOSITORY


@pytest.mark.parametrize("word", ["X", "NV1", "NV18", "PIX", "PXB", "PHB", "NODE", "SYS", "?"])
def test_link_words(word: str) -> None:
    assert LinkClass.parse(word).word == word


def test_old_and_lower_words() -> None:
    assert LinkClass.parse("SOC") == LinkClass(LinkKind.SYS)
    assert LinkClass.parse("nv4") == LinkClass(LinkKind.NVLINK, 4)


@pytest.mark.parametrize("word", ["", "NV", "NV0", "NVx", "FOO"])
def test_what_is_no_link_word(word: str) -> None:
    with pytest.raises(TopologyError, match="is no link word"):
        LinkClass.parse(word)


def test_select_keeps_indices() -> None:
    machine = known_machine("dgx1-v100").select([5, 1])
    assert machine.indices == (5, 1)
    assert [(link.a, link.b, link.link_class.word) for link in machine.links] == [(1, 5, "NV2")]
    with pytest.raises(TopologyError, match=r"no GPU 8; there are 8 GPUs \(0, 1"):
        known_machine("dgx1-v100").select([8])


def test_machines_that_contradict_themselves() -> None:
    with pytest.raises(TopologyError, match="appears twice"):
        Machine((Gpu(0), Gpu(0)))
    with pytest.raises(TopologyError, match="link 0-2 does not join"):
        Machine((Gpu(0), Gpu(1)), (Link(0, 2, LinkClass.parse("PIX")),))


def test_words_for_people() -> None:
    assert [gpu_list(range(n)) for n in (0, 1, 2)] == ["0 GPUs", "1 GPU (0)", "2 GPUs (0, 1)"]
    assert [size(n) for n in (12, 1_724_320, 2 * 10**9)] == ["12 bytes", "1.72 MB", "2 GB"]
    assert [duration(s) for s in (2.5e-6, 0.0123, 1.5)] == ["2.5 us", "12.3 ms", "1.5 s"]


@pytest.mark.parametrize("name", machine_names())
def test_the_catalogue_is_sound(name: str) -> None:
    machine = known_machine(name)
    content = json.loads((resources.catalogue_folder() / f"{name}.json").read_text())
    count = len(machine.gpus)
    assert content["name"] == name
    assert len(content["matrix"]) == len(content["numa_nodes"]) == count
    rows = [row.split() for row in content["matrix"]]
    assert all(len(row) == count for row in rows)
    assert all(rows[a][b] == rows[b][a] for a in range(count) for b in range(count))
    assert [rows[a][a] for a in range(count)] == ["X"] * count
    assert len(machine.links) == count * (count - 1) // 2


def test_network_cards_of_the_catalogue() -> None:
    machine = known_machine("hgx-a100")
    assert machine.network == LinkFigure(22e9, pytest.approx(15e-6))
    assert machine.network_cards == 8
    plain = known_machine("caffe-4x-pcie")
    assert (plain.network, plain.network_cards) == (None, 1)
    assert network_figure(plain).bytes_per_s == 11e9


def test_ranks_on_cpu_cores_are_members_where_there_is_no_gpu() -> None:
    machine = Machine(cpu_ranks=(CpuRank(0), CpuRank(2), CpuRank(1)))
    assert machine.members == machine.cpu_ranks
    assert machine.indices == (0, 2, 1)
    assert machine.link_class(0, 2).word == "SHM"
    assert machine.select([1, 0]).cpu_ranks == (CpuRank(1), CpuRank(0))
    assert Machine((Gpu(0),), cpu_ranks=(CpuRank(5),)).indices == (0,)


def test_figures_and_vetoes_follow_their_gpus() -> None:
    machine = known_machine("caffe-4x-pcie").with_vetoes({(0, 1): "hang", (2, 3): "wrong data"})
    machine = machine.with_measured({(0, 1): LinkFigure(1e9, 1e-6, origin="measured")})
    kept = machine.select([3, 2])
    assert (dict(kept.vetoes), dict(kept.measured)) == ({(2, 3): "wrong data"}, {})
    with pytest.raises(TopologyError, match="veto 1-0 does not join two of the GPUs .*the lower one first"):
        machine.with_vetoes({(1, 0): "x"})


def test_words_that_no_text_has() -> None:
    for word in ("SHM", "NET"):
        with pytest.raises(TopologyError, match="is no link word"):
            LinkClass.parse(word)


def test_a_machine_that_the_catalogue_lacks() -> None:
    with pytest.raises(TopologyError, match=r"no machine 'dgx1-v10' .*did you mean dgx1-v100"):
        known_machine("dgx1-v10")


def test_where_the_catalogue_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    assert resources.CHECKOUT == REPOSITORY / "topology"
    monkeypatch.setattr(resources, "CHECKOUT", REPOSITORY / "nowhere")
    monkeypatch.setattr(resources, "INSTALLED", REPOSITORY / "topology")
    assert resources.catalogue_folder() == REPOSITORY / "topology"
    monkeypatch.setattr(resources, "INSTALLED", REPOSITORY / "nowhere")
    with pytest.raises(TopologyError, match=r"expected links.json in .*nowhere"):
        resources.catalogue_folder()
