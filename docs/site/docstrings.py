"""Our docstrings, plain text with ``code`` between double backquotes, as Markdown and as reStructuredText.

Formulas hold characters that mean something in both (``|x|``, ``a * b``, ``x_i``), so that all of it but code is escaped.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

__all__ = ["for_autodoc", "markdown", "restructured_text", "tidy_signature"]

_CODE = re.compile(r"``(?P<code>.+?)``|:\w+:`(?P<name>[^`]+)`|`(?P<word>[^`]+)`", re.DOTALL)
_MARKDOWN_SIGNS = re.compile(r"([\\*_\[\]<>#|{}~$])")
_RESTRUCTURED_SIGNS = re.compile(r"([\\*|`]|_(?!\w))")
# What readers look for begins a paragraph of its own.
_LANDMARKS = re.compile(r"(?<=[.)]) (?=(?:Gradients?(?: by [^:.]*)?|Source|Blobs|Tops)(?::| \())")


def markdown(docstring: str) -> str:
    """The docstring as Markdown."""
    return _written(docstring, _MARKDOWN_SIGNS, "`{}`", "```text\n{}\n```")


def restructured_text(docstring: str) -> str:
    """The docstring as reStructuredText, without its roles."""
    return _written(docstring, _RESTRUCTURED_SIGNS, "``{}``", "::\n\n{}")


def for_autodoc(_app: Any, _what: str, _name: str, _thing: Any, _options: Any, lines: list[str]) -> None:
    """Rewrite the lines of a docstring in place, as Sphinx asks for."""
    lines[:] = restructured_text("\n".join(lines)).splitlines()


def tidy_signature(_app: Any, _what: str, _name: str, _thing: Any, _options: Any, arguments: str, returned: str) -> Any:
    """The signature with defaults that can be read, where Python shows objects: ``<factory>``, ``<class 'numpy.float32'>``."""
    if arguments and "<" in arguments:
        arguments = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", arguments)
        arguments = re.sub(r"<google\.protobuf\.[^>]*>", "int", arguments)
        for _ in range(2):  # one may hold another: <function Prefetcher.<lambda>>
            arguments = re.sub(r"<[^<>]*>", "...", arguments)
    return arguments, returned


def _written(docstring: str, signs: re.Pattern[str], code: str, literal: str) -> str:
    def plain(text: str) -> str:
        return signs.sub(r"\\\1", text)

    def inline(text: str) -> str:
        parts, end = [], 0
        for found in _CODE.finditer(text):
            name = (found["name"] or "").lstrip("~").rpartition(".")[2]
            parts += [plain(text[end : found.start()]), code.format(found["code"] or name or found["word"])]
            end = found.end()
        return "".join([*parts, plain(text[end:])])

    blocks = []
    for kind, text in _blocks(inspect.cleandoc(docstring)):
        if kind == "literal":
            shown = text if "`" in literal else "\n".join(f"    {line}" for line in text.splitlines())
            blocks.append(literal.format(shown))
        elif kind == "item":
            blocks.append(f"- {inline(text)}")
        else:
            blocks += [inline(part) for part in _LANDMARKS.split(text)]
    return "\n\n".join(blocks) + "\n"


def _blocks(text: str) -> list[tuple[str, str]]:
    """(kind, text) of paragraphs and items, each on one line, and of literal blocks."""
    blocks: list[tuple[str, str]] = []
    introduced = False  # a literal block follows
    for part in re.split(r"\n[ \t]*\n", text.strip("\n")):
        if part.startswith(">>>") or (introduced and part[:1] == " "):
            blocks.append(("literal", inspect.cleandoc("\n" + part)))
            continue
        introduced = part.rstrip().endswith("::")
        part = part.rstrip().removesuffix("::") + (":" if introduced and part.strip() != "::" else "")
        for index, piece in enumerate(re.split(r"(?:^|\n) *- ", part)):
            line = " ".join(piece.split())
            if line:
                blocks.append(("item" if index else "paragraph", line))
    return blocks
