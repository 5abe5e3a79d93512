"""Finds runs, ours and other tools', and reads their curves. No torch; may import judge and files."""
