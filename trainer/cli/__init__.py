"""The command line: all that knows Hydra. Imported by the entry points alone; may import every other floor."""
