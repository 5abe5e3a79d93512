"""Shows an evaluation: on the terminal and as one HTML page. May import compare, judge, read and files."""
