"""Recipes for starting ranks, to be copied and changed. Installed as `paratrain.launch.recipes`."""
