"""Runs from Python: what a script or a notebook asks for becomes a command line, what it left becomes tables.

`import trainer` shows its public names. Training happens in a process of its own (child.py), which is the command line
itself: the same bits, and nothing of the caller's process changes.
"""
