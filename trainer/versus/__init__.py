"""A fair comparison in one command: tunes every group alike on the validation split, then compares fresh seeds."""
