"""Small programs around training, each run as `python -m paratrain.tools.NAME`.

`digits` writes databases of real handwritten digits, `plot` draws what `paratrain train --metrics` recorded.
"""
