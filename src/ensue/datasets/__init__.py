"""Published data sets and simulated worlds."""
