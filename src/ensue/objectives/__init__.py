"""Losses, negatives, and what training minimises."""
