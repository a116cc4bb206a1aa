"""`fit`, the training loop, optimisers, signals and distributed training."""
