"""The parts that models are made of. All work on packed events `[P, ...]`."""
