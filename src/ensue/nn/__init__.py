"""The layers that models are built from. All of them work on packed events `[P, ...]`."""
