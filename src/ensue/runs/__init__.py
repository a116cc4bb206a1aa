"""The run folder: settings, checkpoints, lock, log, results and card."""
