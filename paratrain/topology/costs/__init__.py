"""What exchanges cost: what transfers share, closed formulas, and a simulation, on one node and on several."""
