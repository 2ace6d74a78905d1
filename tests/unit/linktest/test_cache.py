"""What is kept about links between runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from paratrain.linktest.cache import LinkCache, cache_folder, machine_key
from paratrain.linktest.gpus import DIRECT, STAGED
from paratrain.linktest.results import LinkResult, Verdict
from paratrain.topology.machine import Gpu, Machine

GPUS = tuple(Gpu(n, bus_id=f"00000000:0{n + 1}:00.0", uuid=f"GPU-{n}") for n in range(3))
MACHINE = Machine(GPUS, driver_version="580.1")
RESULTS = [
    LinkResult(0, 1, DIRECT, Verdict.WRONG_DATA, "1 of 5 bytes"),
    LinkResult(0, 2, DIRECT, Verdict.OK, bytes_per_s=2e10, latency_s=3e-6, host_bytes_per_s=1e10),
]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_CACHE_HOME": str(tmp_path)}


def cache_of(machine: Machine, environ: Mapping[str, str]) -> LinkCache:
    cache = LinkCache.of(machine, environ)
    assert cache is not None
    return cache


def test_what_was_written_is_read(environ: dict[str, str], tmp_path: Path) -> None:
    cache = cache_of(MACHINE, environ)
    assert cache.read() == []
    cache.write(RESULTS)
    assert cache_of(MACHINE, environ).read() == RESULTS
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path / "paratrain"]
    assert [path.name for path in (tmp_path / "paratrain").iterdir()] == [cache.path.name]


def test_newer_findings_replace_older_ones_of_the_same_way(environ: dict[str, str]) -> None:
    cache = cache_of(MACHINE, environ)
    cache.write(RESULTS)
    newer = [LinkResult(0, 1, DIRECT, Verdict.OK), LinkResult(0, 1, STAGED, Verdict.OK)]
    cache.write(newer)
    assert cache.read() == [newer[0], RESULTS[1], newer[1]]


def test_pairs_follow_the_gpus_when_they_are_numbered_anew(environ: dict[str, str]) -> None:
    cache_of(MACHINE, environ).write(RESULTS)
    turned = tuple(replace(gpu, index=2 - gpu.index) for gpu in reversed(GPUS))
    found = cache_of(replace(MACHINE, gpus=turned), environ).read()
    assert [(result.pair, result.verdict) for result in found] == [((1, 2), Verdict.WRONG_DATA), ((0, 2), Verdict.OK)]


def test_another_driver_gpu_or_kernel_command_line_is_another_machine(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_of(MACHINE, environ).write(RESULTS)
    others = [
        replace(MACHINE, driver_version="580.2"),
        replace(MACHINE, gpus=(*GPUS[:2], replace(GPUS[2], uuid="GPU-9"))),
        replace(MACHINE, gpus=(*GPUS[:2], replace(GPUS[2], bus_id="00000000:0a:00.0"))),
    ]
    assert [cache_of(other, environ).read() for other in others] == [[], [], []]
    command_line = tmp_path / "cmdline"
    command_line.write_text("iommu=pt")
    assert machine_key(MACHINE, command_line) != machine_key(MACHINE, tmp_path / "missing")


def test_a_machine_that_does_not_say_who_it_is_has_no_cache(environ: dict[str, str]) -> None:
    assert LinkCache.of(replace(MACHINE, driver_version=""), environ) is None
    assert LinkCache.of(replace(MACHINE, gpus=(Gpu(0),)), environ) is None
    assert LinkCache.of(Machine(driver_version="580.1"), environ) is None


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "null", "3", '"text"', '{"schema": 1}', "\x00\xff", "[" * 100_000,
        lambda good: {**good, "schema": 2},
        lambda good: {**good, "key": {}},
        lambda good: {**good, "results": [{}]},
        lambda good: {**good, "results": [{**good["results"][0], "verified": "fine"}]},
        lambda good: {**good, "results": [{**good["results"][0], "a": "00000000:99:00.0"}]},
        lambda good: {**good, "results": [{**good["results"][0], "b": good["results"][0]["a"]}]},
        lambda good: {**good, "results": [{**good["results"][0], "gbps": "fast"}]},
        lambda good: {**good, "results": [{**good["results"][0], "gbps": -1}]},
        lambda good: {**good, "results": 7},
    ],
)  # fmt: skip
def test_a_damaged_file_is_left_out_with_a_warning(
    content: object, environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    cache = cache_of(MACHINE, environ)
    cache.write(RESULTS)
    if callable(content):
        content = json.dumps(content(json.loads(cache.path.read_text())))
    assert isinstance(content, str)
    cache.path.write_bytes(content.encode("latin-1"))
    assert cache.read() == []
    assert "is damaged" in caplog.text
    cache.write(RESULTS)  # and is replaced
    assert cache.read() == RESULTS


def test_a_folder_that_cannot_be_written_ends_nothing(
    environ: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "paratrain").write_text("a file, no folder")
    cache = cache_of(MACHINE, environ)
    assert cache.read() == []
    cache.write(RESULTS)
    assert "the links will be tested again" in caplog.text


def test_where_the_folder_lies() -> None:
    assert cache_folder({"XDG_CACHE_HOME": "/somewhere"}) == Path("/somewhere/paratrain")
    for environ in ({}, {"XDG_CACHE_HOME": ""}, {"XDG_CACHE_HOME": "relative"}):
        assert cache_folder(environ) == Path.home() / ".cache" / "paratrain"
