"""Protocols, standings, metrics and statistical tests."""
