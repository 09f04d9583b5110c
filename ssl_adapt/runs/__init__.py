"""The folder of a run with its checkpoints, lock and log, the stop signal, and grids of runs."""
