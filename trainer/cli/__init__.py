"""The command line: all that knows Hydra. Imported by the entry points alone; may import every other floor."""

SUBCOMMANDS = {  # of the console script `trainer` and of `python -m trainer`: word -> module with a `main(arguments)`
    "cure": "trainer.cure.__main__",
    "evaluate": "trainer.evaluate",
    "trace": "trainer.trace.__main__",
    "versus": "trainer.versus.__main__",
}
