"""Search for better settings on validation."""
