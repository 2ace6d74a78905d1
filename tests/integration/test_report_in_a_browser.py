"""The page of `paratrain report` in headless Chromium: nothing is cut or overlaps, on a wide and on a narrow screen."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli import paratrain_here
from tests.paths import REPOSITORY
from tests.unit.tools.report.many_ranks import many_ranks

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1500,1000",
)  # fmt: skip
BROKEN = """
.tile { white-space: nowrap; width: 40px; }
.tile + .tile { margin: -30px; }
.row { height: 3px; }
svg text { font-size: 60px !important; }
"""

# Rectangles of what is shown. A place is named by its class and the beginning of its text.
MEASURE = """
function problems(frame) {
  const page = frame.contentDocument, found = [];
  const name = e => e.tagName + "." + (e.getAttribute("class") || "") + ": " + e.textContent.trim().slice(0, 40);
  const box = e => e.getBoundingClientRect();
  const shown = e => { const b = box(e); return b.width > 0 && b.height > 0; };
  const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  const within = (a, b) => a.left >= b.left - 1 && a.right <= b.right + 1 && a.top >= b.top - 1 && a.bottom <= b.bottom + 1;
  const all = (selector, root) => Array.from((root || page).querySelectorAll(selector)).filter(shown);
  if (page.documentElement.scrollWidth > frame.clientWidth) found.push("wider than the page");
  for (const e of all("h1,h2,h3,p,li,dt,dd,td,th,pre,.tile,.card,figure,.label,.figure,.row,main"))
    if (e.scrollWidth > e.clientWidth + 1 && frame.contentWindow.getComputedStyle(e).display != "inline")
      found.push("cut: " + name(e));
  for (const parent of all("main,section,header,.grid2,.tiles,.card,figure,.row,dl,.legend,.warnings,tr")) {
    const children = Array.from(parent.children).filter(shown);
    children.forEach((a, i) => {
      if (!within(box(a), box(parent))) found.push("outside: " + name(a));
      for (const b of children.slice(i + 1)) if (meet(box(a), box(b))) found.push("overlap: " + name(a) + " / " + name(b));
    });
  }
  for (const svg of all("svg")) {
    const texts = all("text", svg);
    texts.forEach((a, i) => {
      if (!within(box(a), box(svg))) found.push("outside the drawing: " + name(a));
      for (const b of texts.slice(i + 1)) if (meet(box(a), box(b))) found.push("texts overlap: " + name(a) + " / " + name(b));
    });
  }
  return {found, sections: all("h2").map(e => e.textContent), drawings: all("svg").length, height: page.body.scrollHeight};
}
window.onload = () => {
  const result = {};
  for (const frame of document.querySelectorAll("iframe")) result[frame.id] = problems(frame);
  document.getElementById("result").textContent = JSON.stringify(result);
};
"""


def browser() -> str:
    for name in BROWSERS:
        if (path := shutil.which(name)) is not None:
            return path
    pytest.skip("no Chromium here; install Debian's package chromium, or Chrome")


def measure(frames: dict[str, tuple[int, str]], folder: Path) -> Any:
    """Show pages in frames of given widths, and return what has been measured in each."""
    inner = "".join(
        f'<iframe id="{name}" style="border:0;width:{width}px;height:900px" srcdoc="{html.escape(page)}"></iframe>'
        for name, (width, page) in frames.items()
    )
    outer = folder / "outer.html"
    outer.write_text(f'<!DOCTYPE html><body>{inner}<pre id="result"></pre><script>{MEASURE}</script></body>')
    command = [browser(), *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", outer.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None and found[1], (done.returncode, done.stderr[-2000:])
    return json.loads(html.unescape(found[1]))


def test_nothing_is_cut_or_overlaps(tmp_path: Path) -> None:
    browser()
    many_ranks(tmp_path / "many.jsonl")
    shutil.copy(REPOSITORY / "tests/golden/log/caffe_train.log", tmp_path / "caffe.log")
    for command in (
        ["topology", "--ranks", "4", "--save", "plan.json"],
        ["report", "many.jsonl", "--topology", "plan.json"],
        ["report", "caffe.log"],
    ):
        done = paratrain_here(tmp_path, *command)
        assert done.returncode == 0, done.stderr
    many, caffe = ((tmp_path / f"{name}.html").read_text() for name in ("many", "caffe"))
    frames = {f"{name} {width}": (width, page)
              for name, page in (("many", many), ("caffe", caffe)) for width in (1400, 390, 760)}  # fmt: skip
    frames["broken"] = (390, many.replace("</style>", BROKEN + "</style>"))
    measured = measure(frames, tmp_path)
    broken = measured.pop("broken")["found"]
    for kind in ("cut: ", "outside: ", "overlap: ", "texts overlap: ", "outside the drawing: "):
        assert any(problem.startswith(kind) for problem in broken), kind  # the measurement sees what is wrong
    for name, found in measured.items():
        assert found["found"] == [], name
        assert found["height"] > 900
    everything = ["Curves", "Speed", "Ranks", "Machine", "Layers", "Warnings", "Settings"]
    assert measured["many 1400"]["sections"] == everything
    assert measured["many 390"]["drawings"] == measured["many 1400"]["drawings"] == 9
    assert measured["caffe 390"]["sections"] == ["Curves", "Speed", "Warnings", "Settings"]
