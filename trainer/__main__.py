"""`python -m trainer`: hand over to app; a user's mistake becomes one clear message and exit code 2."""

import sys


def main() -> None:
    try:
        from trainer import app

        code = app.run(sys.argv[1:])
    except KeyboardInterrupt:  # before training began, or a second time: nothing to save, or no patience to save it
        print("trainer: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
