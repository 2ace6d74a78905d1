from __future__ import annotations

from pathlib import Path

import pytest

from paratrain.errors import CommunicationError
from paratrain.launch.hosts import Host, parse_hosts, read_host_file, slot_count
from paratrain.launch.self_launch import mpirun_arguments


def test_both_forms_of_a_host_file(tmp_path: Path) -> None:
    path = tmp_path / "hosts.txt"
    path.write_text(
        "# remark\n\nnode1:4\nnode2 slots=2  # another\nnode3\n10.0.0.4 slots = 3 max_slots=4\n[fe80::1]:2\n"
        "node6 max-slots=8 slots=5\nnode7 max-slots=8\n"
    )
    hosts = read_host_file(str(path))
    assert [str(host) for host in hosts] == [
        "node1:4",
        "node2:2",
        "node3:1",
        "10.0.0.4:3",
        "[fe80::1]:2",
        "node6:5",
        "node7:1",
    ]
    assert slot_count(hosts) == 18


def test_a_list_of_hosts() -> None:
    assert parse_hosts("node1:4, node2") == [Host("node1", 4), Host("node2", 1)]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("node1:4\nnode2 = 3\n", [":2: expected node1, node1:4 or node1 slots=4, found 'node2 = 3'"]),
        ("me@node1:4\n", [":1: expected node1,", "found 'me@node1:4'; the name of a user belongs into ~/.ssh/config"]),
        ("# nothing\n", ["names no host"]),
        ("a:1\na:2\n", ["names a twice"]),
        ("a:0\n", ["a takes no ranks"]),
    ],
)
def test_host_files_that_cannot_be_used(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = tmp_path / "hosts.txt"
    path.write_text(text)
    with pytest.raises(CommunicationError) as raised:
        read_host_file(str(path))
    assert all(part in str(raised.value) for part in parts)
    with pytest.raises(CommunicationError, match="cannot be read"):
        read_host_file(str(tmp_path / "missing"))
    with pytest.raises(CommunicationError, match="'a b' is not like node1:4"):
        parse_hosts("a b")


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("mpich", ["-hosts", "a:2,b:2", "-launcher", "rsh"]),
        ("openmpi", ["--bind-to", "none", "--host", "a:2,b:2", "-x", "NAME", "-launcher", "rsh"]),
    ],
)
def test_hosts_on_the_command_line_of_mpirun(family: str, expected: list[str]) -> None:
    found = mpirun_arguments(
        Path("/v/mpirun"),
        family,
        4,
        ["paratrain"],
        is_root=False,
        core_count=2,
        hosts=["a:2", "b:2"],
        options=["-launcher", "rsh"],
        variables=["NAME"],
    )
    assert found == ["/v/mpirun", "-n", "4", *expected, "paratrain"]
