"""The training loop, its objective, checkpoints and log."""
