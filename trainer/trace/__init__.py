"""Takes one training step apart: `collect` gathers it as plain data (`facts`), `text` and `svg` show it.

Stands on core alone; only its `__main__` imports cli. No other module imports it.
"""
