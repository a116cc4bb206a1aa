"""The output of the command lines."""
