"""The program: :func:`holo.cli.main`, and Ctrl-C explained also while that is being loaded."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    try:
        from holo.cli import main as run
    except KeyboardInterrupt:
        from holo.errors import INTERRUPTED

        sys.stderr.write(f"error: {INTERRUPTED}\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
