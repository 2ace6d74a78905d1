"""Small programs around training: making databases, looking into them, and drawing.

`digits` (databases of real handwritten digits) is run as `python -m paratrain.tools.digits`; the others are behind verbs of the
command line.
"""
