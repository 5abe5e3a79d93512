"""Shows an evaluation: on the terminal, as a page, in files, to CI. May import compare, judge, read and files."""
