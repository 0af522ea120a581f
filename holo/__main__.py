"""The program: :func:`holo.cli.main`, and Ctrl-C explained also while that is being loaded; what shells ask at Tab."""

import os
import sys
from contextlib import suppress
from typing import NoReturn


def main() -> NoReturn:
    if sys.argv[1:2] == ["__complete"]:  # before anything that takes time
        from holo.completion import main as complete

        os._exit(complete(sys.argv[2:]))
    if os.name == "posix" and sys.getfilesystemencoding() != "utf-8" and sys.executable:
        _begin_again_with_utf8()
    try:
        from holo.cli import main as run
    except KeyboardInterrupt:
        from holo.errors import INTERRUPTED
        from holo.streams import say

        say(f"error: {INTERRUPTED}")
        # Not sys.exit: Python would end itself by SIGINT if that came in an eval, as a named tuple's making is one.
        os._exit(130)
    run()


def _begin_again_with_utf8() -> None:
    """File names are bytes. A catalog must not depend on the locale in which they became text.

    The option wins over PYTHONUTF8, and unlike a variable it is not passed on to what `holo run` starts. If the
    program cannot be started again, :func:`holo.walk.refuse_encoding` says what to do.
    """
    with suppress(OSError):
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - it is this program


if __name__ == "__main__":
    main()
