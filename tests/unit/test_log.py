from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from datetime import datetime

import pytest

from paratrain.log import GlogFormatter, ProgressBar

CLASSIC = re.compile(r"([IWEF])(\d\d)(\d\d) (\d\d):(\d\d):(\d\d)\.(\d{6}) +(\d+) (\S+):(\d+)\] (.*)", re.S)


def record(level: int = logging.INFO, message: str = "Iteration %d, lr = %g", *values: object) -> logging.LogRecord:
    made = logging.LogRecord("paratrain.x", level, "/some/where/solver.py", 239, message, values or (20, 0.01), None)
    made.created = datetime(2024, 3, 9, 1, 2, 3, 45678).timestamp()
    return made


def test_the_prefix_is_glogs_classic_one() -> None:
    line = GlogFormatter().format(record())
    match = CLASSIC.fullmatch(line)
    assert match is not None, line
    assert match.groups()[:6] == ("I", "03", "09", "01", "02", "03")
    assert abs(int(match[7]) - 45678) <= 1
    assert int(match[8]) == threading.get_native_id()
    assert match.groups()[8:] == ("solver.py", "239", "Iteration 20, lr = 0.01")


def test_caffes_way_to_find_the_time_reads_it() -> None:
    """The old tools split a line at blanks, take month and day from the first word and the time from the second."""
    words = GlogFormatter().format(record()).strip().split()
    month, day = int(words[0][1:3]), int(words[0][3:])
    time = datetime.strptime(words[1], "%H:%M:%S.%f")
    assert (month, day, time.hour, time.minute, time.second) == (3, 9, 1, 2, 3)


@pytest.mark.parametrize(
    ("level", "letter"), [(logging.DEBUG, "I"), (logging.WARNING, "W"), (logging.ERROR, "E"), (logging.CRITICAL, "F")]
)
def test_severities(level: int, letter: str) -> None:
    assert GlogFormatter().format(record(level))[0] == letter


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)


def test_a_program_that_asks_for_nothing_hears_only_warnings() -> None:
    code = "import logging; l = logging.getLogger('paratrain.net'); l.info('quiet'); l.warning('heard')"
    done = run(f"import paratrain.log; {code}")
    assert (done.stdout, done.stderr) == ("", "heard\n")


def test_init_log_sends_the_log_to_stderr_once() -> None:
    code = "import paratrain.log as p; p.init_log(); p.init_log(); p.log('hello')"
    done = run(code)
    assert done.stdout == ""
    match = CLASSIC.fullmatch(done.stderr.rstrip("\n"))
    assert match is not None, done.stderr
    assert (match[9], match[11]) == ("<string>", "hello")


def test_a_level_leaves_lines_out() -> None:
    code = "import logging, paratrain.log as p; p.init_log(logging.WARNING); p.log('no'); "
    assert run(code + "logging.getLogger('paratrain').warning('yes')").stderr.endswith("] yes\n")


def test_there_is_no_bar_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar(10) as bar:
        bar.advance(1.0)
    assert capsys.readouterr() == ("", "")


def test_the_log_stands_above_a_bar() -> None:
    """On a terminal (a pseudo-terminal here) a log line starts at the first column, after the bar has been wiped away."""
    code = (
        "import paratrain.log as p; p.init_log()\n"
        "with p.ProgressBar(2) as bar:\n"
        "    bar.advance(0.5); p.log('between'); bar.advance(0.25)\n"
    )
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=terminal)
    os.close(terminal)
    seen = b""
    while True:
        try:
            chunk = os.read(controller, 4096)
        except OSError:
            break
        if not chunk:
            break
        seen += chunk
    assert process.wait(timeout=60) == 0
    os.close(controller)
    text = seen.decode()
    assert re.search(r"[\r\n]I\d{4} [\d:.]+ +\d+ <string>:3\] between\r\n", text), text
    assert "0/2 [" in text
