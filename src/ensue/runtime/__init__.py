"""The machine: memory, threads and devices."""
