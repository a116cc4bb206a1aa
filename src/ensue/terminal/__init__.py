"""What the command lines write to a terminal."""
