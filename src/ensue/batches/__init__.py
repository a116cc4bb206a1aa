"""From rows of a store to batches: packed sequences, tasks, negatives, the loader."""
