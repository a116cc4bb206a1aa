"""Several models on one data set under one protocol, within one budget: `ensue bench`."""
