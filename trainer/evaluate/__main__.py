"""See trainer/evaluate/__init__.py."""

import sys

from trainer.evaluate.command import main

if __name__ == "__main__":
    sys.exit(main())
