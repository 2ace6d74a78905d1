"""The ``paratrain`` command: one module per verb, and how ranks start and end."""
