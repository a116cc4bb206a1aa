"""Kernels and gradients written by hand, each beside the obvious form that checks it."""
