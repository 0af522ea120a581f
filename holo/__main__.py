"""The program: :func:`holo.cli.main`, and Ctrl-C explained also while that is being loaded."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    try:
        from holo.cli import main as run
    except KeyboardInterrupt:
        from holo.errors import INTERRUPTED
        from holo.streams import say

        say(f"error: {INTERRUPTED}")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
