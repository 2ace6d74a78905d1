"""The order of the site: the entries of its menu, and the pages below each."""

from __future__ import annotations

__all__ = ["MENU", "contents_of"]

# (what the menu says, the page, the pages below it)
MENU: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Start here", "quickstart", ("training",)),
    ("From Caffe", "from_caffe", ("pycaffe", "pictures", "plots_and_reports", "exporting")),
    ("Prototxt and layers", "layers", ("layer_reference", "checking")),
    ("Many GPUs", "many_gpus", ("gpu",)),
    ("Many machines", "launching", ("watching", "timeline")),
    ("Data", "data", ("converting",)),
    ("Resuming", "resuming", ()),
    ("Topology", "topology", ()),
    ("Writing a layer", "adding_layers", ()),
    ("API", "api", ()),
    ("Troubleshooting by symptom", "troubleshooting", ()),
    (
        "Design",
        "design",
        (
            "design/0001-packaging",
            "design/0002-topology",
            "design/0003-exchange",
            "design/0004-onednn",
            "design/0005-gpu",
            "design/0006-gpu-step",
            "dependencies",
        ),
    ),
    ("Changelog", "changelog", ()),
)


def contents_of(page: str) -> str:
    """The pages below ``page`` as a table of contents that is seen in the menu alone; empty where there are none."""
    below = [f"{title} <{name}>" for title, name, _ in MENU] if page == "index" else []
    below += [name for _, parent, names in MENU if parent == page for name in names]
    return "\n".join(["\n```{toctree}", ":hidden:", "", *below, "```\n"]) if below else ""
