"""The report of evaluated runs: one HTML file."""
