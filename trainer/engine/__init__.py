"""Who trains what, where, and what is left after a crash. May import record, judge, core, config and files."""
