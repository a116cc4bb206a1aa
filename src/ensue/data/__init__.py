"""From logs to sequences: reading, preparing, storing and splitting. Nothing in this package imports torch."""
