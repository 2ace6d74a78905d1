"""What a wheel holds, and that paratrain finds its data files however it is installed."""

from __future__ import annotations

import email
import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

OPTIONAL_LIBRARIES = ("mpi4py", "ml_dtypes", "lmdb", "cupy", "pynvml", "h5py", "cv2", "plyvel", "matplotlib", "sklearn")

# Run without the checkout on the path, unless the test puts it there.
FIND_DATA = """
import json
import paratrain
from paratrain.topology.resources import catalogue_folder
names = sorted(path.name for path in catalogue_folder().iterdir() if path.suffix == ".json")
print(json.dumps([paratrain.__file__, names]))
"""


def python(code: str, folder: Path, path: Path | None = None) -> str:
    """Run `code` in `folder` with `path` as PYTHONPATH; return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(kind: str, source: Path, folder: Path) -> Path:
    """Build a "wheel" or an "sdist" of `source` into `folder`, with the installed setuptools: nothing is downloaded."""
    code = f"from setuptools import build_meta; print('built', build_meta.build_{kind}({str(folder)!r}))"
    return folder / python(code, source).split()[-1]


@pytest.fixture(scope="module")
def source(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a wheel is built from, since building leaves files beside it. Links stay links."""
    if not (repository / "setup.cfg").is_file():
        pytest.skip("no checkout around these tests")
    copy = tmp_path_factory.mktemp("source") / "paratrain"
    copy.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(repository / name, copy)
    for name in ("paratrain", "topology", "launch", "proto"):
        if (repository / name).is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(repository / name, copy / name, symlinks=True, ignore=ignore)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


def contents(wheel: Path) -> set[str]:
    """The files of the package in a wheel, without the metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def package_files(repository: Path) -> set[str]:
    """What ought to be in a wheel: every file of the package, the catalogue and the recipes."""
    files = {path.relative_to(repository) for path in (repository / "paratrain").rglob("*") if path.is_file()}
    for data, place in (("topology", "topology/catalogue"), ("launch", "launch/recipes")):
        for path in (repository / data).rglob("*"):
            if path.is_file():
                files.add(Path("paratrain") / place / path.relative_to(repository / data))
    return {file.as_posix() for file in files if "__pycache__" not in file.parts}


def test_wheel_holds_the_whole_package_and_nothing_else(wheel: Path, repository: Path) -> None:
    assert contents(wheel) == package_files(repository)


def test_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folder = next(name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name)
        fields = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
        entry_points = archive.read(f"{folder}/entry_points.txt").decode()
        assert f"{folder}/licenses/LICENSE" in archive.namelist()
    assert fields["Requires-Python"] == ">=3.10"
    assert fields["License-Expression"] == "BSD-2-Clause"
    assert "paratrain = paratrain.launch.cli:main" in entry_points
    required = [value for value in fields.get_all("Requires-Dist", []) if "extra ==" not in value]
    names = {value.split(">")[0].strip() for value in required}
    expected = {"numpy", "protobuf", "lmdb", "mpi4py", "ml_dtypes", "nvidia-ml-py", "tqdm", "threadpoolctl"}
    assert names == expected | {"onednn-cpu-gomp"}
    extras = {"mpi", "cuda12", "cuda13", "hdf5", "images", "leveldb", "plot", "draw", "demo", "test", "dev", "docs"}
    extras |= {"onnx", "safetensors", "splines", "tensorboard"}
    assert set(fields.get_all("Provides-Extra", [])) == extras


def test_wheel_made_from_the_source_distribution_is_the_same(source: Path, wheel: Path, tmp_path: Path) -> None:
    archive = build("sdist", source, tmp_path)
    subprocess.run(["tar", "-xf", str(archive), "-C", str(tmp_path)], check=True)
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    assert contents(build("wheel", unpacked, tmp_path)) == contents(wheel)


def test_data_is_found_in_a_wheel(wheel: Path, repository: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    file, names = json.loads(python(FIND_DATA, tmp_path, path=tmp_path / "site"))
    assert Path(file).is_relative_to(tmp_path / "site")
    assert names == sorted(path.name for path in (repository / "topology").glob("*.json"))


def test_data_is_found_in_a_bare_checkout(source: Path, repository: Path, tmp_path: Path) -> None:
    file, names = json.loads(python(FIND_DATA, tmp_path, path=source))
    assert Path(file).is_relative_to(source)
    assert names == sorted(path.name for path in (repository / "topology").glob("*.json"))


def test_data_is_found_in_an_editable_install(repository: Path, tmp_path: Path) -> None:
    # All distributions of the name: the checkout's own egg-info may come before the installed one.
    installed = [found.read_text("direct_url.json") for found in metadata.distributions(name="paratrain")]
    if not any(json.loads(text).get("dir_info", {}).get("editable") for text in installed if text):
        pytest.skip("paratrain is not installed as editable here; scripts/test installs it so")
    file, names = json.loads(python(FIND_DATA, tmp_path))
    assert Path(file).is_relative_to(repository)
    assert names == sorted(path.name for path in (repository / "topology").glob("*.json"))


def test_importing_paratrain_loads_no_optional_library(repository: Path, tmp_path: Path) -> None:
    code = f"import sys, paratrain; print([name for name in {OPTIONAL_LIBRARIES!r} if name in sys.modules])"
    assert python(code, tmp_path, path=repository).strip() == "[]"


def test_python_dash_m_paratrain(repository: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    command = [sys.executable, "-m", "paratrain", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in ("train", "test", "time", "device_query", "topology"):
        assert verb in done.stdout
