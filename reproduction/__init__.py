"""The paper's tables as grids of runs: what is run, how, and what came of it beside what the paper reports."""
