"""The native library: the same computations as torch's, for CPUs, several times faster. See docs/native.md."""
