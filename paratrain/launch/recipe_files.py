"""The recipes that the package brings: files for people to copy and change."""

from __future__ import annotations

from pathlib import Path

from paratrain.errors import ParatrainError

__all__ = ["read_recipe", "recipe_names"]


def recipe_names() -> list[str]:
    """The names of the recipes."""
    return sorted(path.name for path in _folder().iterdir() if path.is_file() and path.suffix not in (".py", ".pyc"))


def read_recipe(name: str) -> str:
    """Return the text of the recipe of that name; the ending may be left out. Raises ParatrainError with the names."""
    names = recipe_names()
    found = [known for known in names if name in (known, known.partition(".")[0])]
    if len(found) != 1:
        raise ParatrainError(f"there is no recipe '{name}'; there are {', '.join(names)}")
    return (_folder() / found[0]).read_text(encoding="utf-8")


def _folder() -> Path:
    """In the package; in a checkout that was unpacked without links, at the root."""
    inside = Path(__file__).parent / "recipes"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "launch"
