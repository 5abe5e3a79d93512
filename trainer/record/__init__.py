"""A run directory: events, metrics, pictures, summary. May import core, judge, config and files."""
