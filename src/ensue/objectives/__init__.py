"""Losses, negatives, and the objective that training minimises."""
