"""Settings of the site that scripts/docs builds of docs/*.md by Sphinx."""

from __future__ import annotations

from paratrain import __version__

project = "paratrain"
author = "paratrain contributors"
version = release = __version__
copyright = "paratrain contributors. BSD 2-Clause license"  # noqa: A001  (the name that Sphinx gives it)

# The last one lies beside this file.
extensions = ["myst_parser", "sphinx.ext.autodoc", "references"]
exclude_patterns = ["site"]
myst_heading_anchors = 4
# Blocks without a language are output and prototxt.
highlight_language = "none"

autodoc_typehints_format = "short"
autodoc_type_aliases = {"npt.DTypeLike": "DTypeLike", "npt.ArrayLike": "ArrayLike"}
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
# Types in signatures are short names, of which two packages may have the same: such a name is no link then, or the first one.
suppress_warnings = ["ref.python"]
maximum_signature_line_length = 100

html_theme = "furo"
html_title = "paratrain"
html_copy_source = False
