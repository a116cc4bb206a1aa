"""From rows of a store to batches: packed sequences, layouts, tasks and the loader."""
