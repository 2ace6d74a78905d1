"""Conversions that are interrupted, or run out of disk, leave nothing that looks finished; bars are for terminals."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

from tests.integration.cli import COMMAND, ENVIRONMENT, error, messages, paratrain
from tests.paths import DATA

pytest.importorskip("cv2", reason="no OpenCV is installed (the extra 'images')")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Caffe's images and their list."""
    shutil.copytree(DATA / "images" / "images", tmp_path / "images")
    shutil.copy(DATA / "images" / "list.txt", tmp_path)
    return tmp_path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def endless(folder: Path, verb: str) -> list[str]:
    """A command that is at work for long, on images that soon are more than is committed at once."""
    size = ("-resize_height=400", "-resize_width=400")
    if verb == "convert_imageset":
        (folder / "long.txt").write_text("china/00.jpg 0\n" * 200_000)
        return [verb, *size, "images/", "long.txt", "db"]
    for index in range(3000):
        (folder / f"images/china/{index:05d}.png").symlink_to(folder / "images/flower/19.png")
    return [verb, *size, "images", "db"]


def heed_interrupts() -> None:
    """What a shell has started in the background ignores SIGINT, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize("verb", ["convert_imageset", "convert_folder"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_is_interrupted_leaves_nothing_that_looks_finished(
    folder: Path, verb: str, number: signal.Signals
) -> None:
    words = endless(folder, verb)
    before = names(folder)
    with subprocess.Popen(
        [*COMMAND, *words],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    ) as process:
        partial = folder / f"db.partial-{process.pid}"
        deadline = time.monotonic() + 60
        while not any(path.stat().st_size > 100_000 for path in partial.rglob("data.mdb")):
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.02)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert names(folder) == before | {partial.name}
        quick = [word.replace("long.txt", "list.txt").replace("400", "4") for word in words]
        (folder / "images/china").rename(folder / "images/.china")  # 12 images are left
        after = paratrain(folder, *quick)
        assert after.returncode == 0, after.stderr
        assert any(f"removed {partial}" in line for line in messages(after))
        assert names(folder) == before | {"db"}
        return
    assert names(folder) == before
    assert "Traceback" not in stderr
    said = {signal.SIGINT: "paratrain: interrupted", signal.SIGTERM: "paratrain: ended by SIGTERM"}[number]
    assert said in stderr
    assert process.returncode == 128 + number


def test_a_bar_is_drawn_on_a_terminal_only(folder: Path) -> None:
    words = ["convert_imageset", "images/", "list.txt", "db"]
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    done = subprocess.run(
        [*COMMAND, *words],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=follower,
        check=False,
        timeout=60,
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # Linux says so at the end of what a terminal has been told
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    assert done.returncode == 0, shown
    assert b"/24 [" in shown and b" images" in shown
    plain = paratrain(folder, *words[:-1], "db2")
    assert "/24 [" not in plain.stderr
    assert plain.stderr.count("\n") == 2


@pytest.mark.parametrize("verb", ["convert_mnist", "convert_imageset"])
def test_a_full_disk(folder: Path, verb: str) -> None:
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        files = [str(DATA / "t10k-images-idx3-ubyte.gz"), str(DATA / "t10k-labels-idx1-ubyte.gz")]
        if verb == "convert_imageset":
            files = ["-resize_height=128", "-resize_width=128", "images/", "list.txt"]
        failed = paratrain(folder, verb, *files, "disk/db")
        said = error(failed)
        assert said.startswith("disk/db: cannot be written (")
        assert f"bytes are free in {disk}. If that is too little, make room or write to another disk" in said
        assert names(disk) == set()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
