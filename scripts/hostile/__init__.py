"""Whether `trainer.evaluate` stands whatever lies in a folder: files made to break it, and files changed at random.

    python -m scripts.hostile                      every kind of hostile input, each beside a sound run
    python -m scripts.hostile --only yaml          those whose name has a word in it
    python -m scripts.hostile --mutations 20000    every file that is read, changed at random

An input holds where the command ends with exit code 0, after at most ten times the work of the sound run alone and with
at most 1 GB of memory, without a traceback or a warning of Python's, has judged the sound run as ever, and has named
what it could not use. Prints a line for each that does not, and a count at the end; exit code 1 where one does not. The
same --seed makes the same inputs.
"""
