"""What Sphinx does not do by itself: generated parts, where a page says ``<!-- generated: layers -->``, links, and the menu."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import api_reference
import docstrings
import layer_reference
from navigation import contents_of

__all__ = ["fill_in", "setup"]

_REPOSITORY = Path(__file__).parents[2]
_MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
# A link to a file of the repository that is not a page: its path stays, as text.
_OUTSIDE = re.compile(r"\[[^\]]*\]\(\.\./([^)#]+)(?:#[^)]*)?\)")
# A link that is named after its file, [training.md](training.md#the-log): the site names the page.
_NAMED_AS_FILE = re.compile(r"\[(\w+)\.md\](?=\(\1\.md[#)])")


def setup(app: Any) -> None:
    """Be called by Sphinx: as pages are read, and as docstrings are."""
    app.connect("source-read", fill_in)
    app.connect("autodoc-process-docstring", docstrings.for_autodoc)
    app.connect("autodoc-process-signature", docstrings.tidy_signature)


def fill_in(_app: Any, name: str, source: list[str]) -> None:
    """Replace the marks, and links out of docs/, in the text of a page, and add to the menu, as Sphinx asks for: in place."""
    made = _MARK.sub(lambda mark: _MAKERS[mark[1]](), source[0])
    made = _NAMED_AS_FILE.sub(_title_instead, _OUTSIDE.sub(_path_instead, made))
    source[0] = made + contents_of(name)


def _path_instead(link: re.Match[str]) -> str:
    if not (_REPOSITORY / link[1]).exists():
        raise ValueError(f"a link to {link[1]}, which is not there: {link[0]}")
    return f"`{link[1]}`"


def _title_instead(link: re.Match[str]) -> str:
    page = _REPOSITORY / "docs" / f"{link[1]}.md"
    heading = re.search(r"^# (.+)$", page.read_text(), re.MULTILINE) if page.exists() else None
    return f"[{heading[1]}]" if heading else link[0]


def _changelog() -> str:
    """CHANGELOG.md with its links as seen from docs/."""
    text = (_REPOSITORY / "CHANGELOG.md").read_text()
    return re.sub(r"\]\((?!https?:|#)(docs/)?", lambda link: "](" if link[1] else "](../", text)


_MAKERS: dict[str, Callable[[], str]] = {
    "layers": layer_reference.text,
    "modules": api_reference.text,
    "changelog": _changelog,
}
