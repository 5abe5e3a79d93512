"""Shows an evaluation: on the terminal, as one HTML page, in files to publish and to CI. May import compare, judge, read and files."""
