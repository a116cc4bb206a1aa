"""Published and simulated data sets."""
