"""Logs to sequences: reading, preparing, storing and splitting. Nothing here imports torch."""
