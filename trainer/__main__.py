"""`python -m trainer`: hand over to app; a user's mistake becomes one clear message and exit code 2."""

import sys


def main() -> None:
    from trainer import app

    sys.exit(app.run(sys.argv[1:]))


if __name__ == "__main__":
    main()
