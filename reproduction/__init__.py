"""The paper's tables as grids of runs: their settings, their runs, and the results beside those of the paper."""
