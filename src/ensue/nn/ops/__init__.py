"""Kernels and hand-written gradients, each with a plain form (`naive_...`) that tests compare it with."""
