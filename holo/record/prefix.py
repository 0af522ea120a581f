"""Find every occurrence of the prefix in a file's content, given in pieces of any size.

An occurrence is the prefix as a whole path: ``/opt/env`` is found in ``/opt/env/bin``, ``-L/opt/env`` and
``/opt/env:/bin``, but not in its sibling ``/opt/env-old`` or ``/opt/env.bak``, whose name merely begins the
same way; patching those would make them point to something that never existed.
"""

from __future__ import annotations

from holo.catalog import Relocation
from holo.content import Hole, Piece

_NAME_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") | frozenset(
    range(128, 256)
)
_LOOKAHEAD = 2
_LONGEST_SHEBANG = 4096


def continues_name(after: bytes) -> bool:
    """Whether ``after`` (the two bytes behind a path, fewer at the end) continues its last component."""
    if not after:
        return False
    if after[0] == 0x2E:  # "/opt/env.bak", but "It is in /opt/env."
        return len(after) > 1 and after[1] in _NAME_BYTES
    return after[0] in _NAME_BYTES


class PrefixFinder:
    """Feed the pieces in order, then :meth:`finish`. Memory does not grow with the file."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._offsets: list[int] = []
        self._ends: list[int] = []
        self._binary = False
        self._head = b""
        self._position = 0  # of the next piece
        self._carry = b""  # the end of the last piece, where an occurrence may have begun
        self._next = 0  # nothing before this can be an occurrence: it was looked at, or is part of one

    def feed(self, piece: Piece) -> None:
        if isinstance(piece, Hole):
            self._pass_over(piece)
            return
        if self._position < _LONGEST_SHEBANG:
            self._head += piece[: _LONGEST_SHEBANG - self._position]
        self._search(self._carry + piece if self._carry else piece, piece, final=False)

    def finish(self) -> Relocation | None:
        """The occurrences, or ``None`` when there are none."""
        self._search(self._carry, b"", final=True)
        if not self._offsets:
            return None
        if not self._binary:
            return Relocation("text", self._offsets, self._shebang())
        self._ends += [self._position] * (len(self._offsets) - len(self._ends))
        return Relocation("binary", self._offsets, self._ends)

    def _pass_over(self, hole: Hole) -> None:
        """No path has a NUL in it, so nothing of an occurrence is among these zeros: a few stand for all of them."""
        few = bytes(hole[: len(self._prefix) + _LOOKAHEAD])
        self.feed(few)
        self._position += len(hole) - len(few)
        self._next = max(self._next, self._position - len(self._carry))

    def _shebang(self) -> list[int]:
        """Where a ``#!`` line that begins with the prefix ends, as a list of one; else no element."""
        if b"\n" in self._prefix or not self._head.startswith(b"#!") or self._head[2 : self._offsets[0]].strip(b" \t"):
            return []
        end = self._head.find(b"\n", self._offsets[0] + len(self._prefix))
        return [end if end >= 0 else len(self._head)]

    def _search(self, window: bytes, piece: bytes, *, final: bool) -> None:
        length = len(self._prefix)
        self._position += len(piece)
        start = self._position - len(window)
        # An occurrence is decided only when the bytes behind it are here, or will never be.
        decidable = len(window) - (0 if final else length + _LOOKAHEAD - 1)
        at = window.find(self._prefix, self._next - start)
        while 0 <= at < decidable:
            after = at + length
            if continues_name(window[after : after + _LOOKAHEAD]):
                self._next = start + at + 1
            else:
                self._offsets.append(start + at)
                self._next = start + after
            at = window.find(self._prefix, self._next - start)
        if not self._binary:
            self._binary = b"\0" in piece
        # Each occurrence lies in a C string that ends at the next NUL.
        while len(self._ends) < len(self._offsets):
            offset = self._offsets[len(self._ends)]
            if not self._ends or self._ends[-1] < offset:  # else it is in the same string as the one before
                end = window.find(b"\0", max(0, offset - start))
                if end < 0:
                    break
                self._ends.append(start + end)
            else:
                self._ends.append(self._ends[-1])
        keep = max(0, min(decidable, len(window)))
        self._next = max(self._next, start + keep)
        self._carry = window[keep:]


def find(prefix: bytes, content: bytes) -> Relocation | None:
    """The occurrences of ``prefix`` in the whole ``content``."""
    if prefix not in content:
        return None
    finder = PrefixFinder(prefix)
    finder.feed(content)
    return finder.finish()
