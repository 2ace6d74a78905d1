"""Plans as text, SVG and Graphviz."""
