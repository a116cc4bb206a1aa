"""Examines a log or a store before anyone trusts a figure from it."""
