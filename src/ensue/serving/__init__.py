"""The server: recommendations over HTTP from a run folder, with a log of events, variants and a page."""
