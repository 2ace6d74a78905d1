"""Small programs around training: making databases, looking into them, and drawing.

`digits` (databases of real handwritten digits) and `plot` (what `paratrain train --metrics` recorded) are run as
`python -m paratrain.tools.NAME`; the others are behind verbs of the command line.
"""
