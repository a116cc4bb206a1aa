"""The examination of a log or a store before training."""
