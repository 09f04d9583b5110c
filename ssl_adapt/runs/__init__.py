"""What a run leaves, how it is found again, and many runs: folder, checkpoints, lock, log, stop signal, grid."""
