"""Shapes of logs: one module per published form, with its recogniser and its reader."""
