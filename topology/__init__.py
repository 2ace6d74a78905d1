"""The machine catalogue: figures of the link classes (links.json) and known machines (all other JSON files)."""
