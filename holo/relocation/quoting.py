"""Quote a path for the places of a text where it goes, by the rules of the text's language.

Only paths with a blank, a quote, ``$``, a backtick or the like need this. The function of a language gets the content
and its places: the offsets, the old and the new paths there. It returns the replacement for each of them, or ``None``
if it does not know one.
"""

from __future__ import annotations

import json
import os
import re
import tokenize
from bisect import bisect_right
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Literal, TypeAlias

_RAW_SUFFIXES = (".pth", ".egg-link", ".txt", ".md", ".rst", ".html", ".bat")
_RAW_NAMES = ("RECORD", "pyvenv.cfg")
"""Files without quotes: a path ends with the line, and cannot have two; or the file is for people, or for Windows."""

_FIRST_LINE = re.compile(rb"#![ \t]*+(?:[^\n]*[/ \t])?(python|pypy|sh|bash|dash|zsh|ksh|fish|t?csh)[0-9.]*[ \t\n]")

_POLYGLOT = re.compile(rb"#!/bin/sh\n'''exec' [^\n]*\n' '''\n")
"""The first lines of a Python script that pip or uv wrote for an interpreter whose path ``#!`` cannot hold."""

Place: TypeAlias = tuple[int, bytes, bytes]
"""An offset, the path that is there, and the path that is to be there."""

Replacements: TypeAlias = list[bytes] | None
Language: TypeAlias = Callable[[bytes, Sequence[Place]], Replacements]


def replacements(path: str, content: bytes, places: Sequence[Place]) -> Replacements:
    """The replacement at each of the ``places``; ``None`` if one is not known.

    ``path``: of the file, whose name may tell the language. ``content``: at least up to the end of the last path.
    """
    if places and places[-1][0] + len(places[-1][1]) > len(content):
        return None
    quoted = _quoted(path, content, places)
    if quoted is None:
        return None
    # What was there before is as it has to be.
    return [new if old == new else text for (_, old, new), text in zip(places, quoted, strict=True)]


def _quoted(path: str, content: bytes, places: Sequence[Place]) -> Replacements:
    polyglot = _POLYGLOT.match(content)
    if polyglot is None:
        language = _language(path, content)
        return language(content, places) if language is not None else None
    # Lines of sh above a text in Python.
    within = [place for place in places if place[0] < polyglot.end()]
    below = [(offset - polyglot.end(), old, new) for offset, old, new in places[len(within) :]]
    above = _sh(content[: polyglot.end()], within)
    rest = _python(content[polyglot.end() :], below)
    return above + rest if above is not None and rest is not None else None


def _language(path: str, content: bytes) -> Language | None:
    name = os.path.basename(path)
    if name in _RAW_NAMES or name.endswith(_RAW_SUFFIXES):
        return _raw
    if name in _BY_NAME:
        return _BY_NAME[name]
    suffix = os.path.splitext(name)[1]
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    line = _FIRST_LINE.match(content)
    return _BY_INTERPRETER[line[1]] if line is not None else None


def _raw(_: bytes, places: Sequence[Place]) -> Replacements:
    return None if any(b"\n" in new for _, _, new in places) else [new for _, _, new in places]


def _json(_: bytes, places: Sequence[Place]) -> Replacements:
    return [os.fsencode(json.dumps(os.fsdecode(new), ensure_ascii=False)[1:-1]) for _, _, new in places]


# -- Python ---------------------------------------------------------------------------------------------------------


_IN_STRING = re.compile(rb"['\"\\\r\n]")
_IN_BYTES = re.compile(rb"['\"\\\r\n\x80-\xff]")
_IN_COMMENT = re.compile(rb"[\r\n]")


def _python(content: bytes, places: Sequence[Place]) -> Replacements:
    if all(re.search(rb"['\"\\{}\n\r\x80-\xff]", new) is None for _, _, new in places):
        return [new for _, _, new in places]
    try:
        literals = _literals(content)
    except (tokenize.TokenError, SyntaxError, UnicodeError):
        return None
    found: list[bytes] = []
    starts = [start for start, _, _ in literals]
    for offset, old, new in places:
        at = bisect_right(starts, offset) - 1
        kind = literals[at][2] if at >= 0 and offset + len(old) <= literals[at][1] else None
        if kind is None or set(kind.lower()) - set("bu#"):  # raw and formatted strings have rules of their own
            return None
        special = _IN_COMMENT if kind == "#" else _IN_BYTES if "b" in kind.lower() else _IN_STRING
        found.append(special.sub(lambda char: b"\\x%02x" % char[0][0], new))
    return found


def _literals(content: bytes) -> list[tuple[int, int, str]]:
    """Where the strings of a program begin and end, with the letters before them; its comments, with ``#``.

    Raises what :func:`tokenize.tokenize` does.
    """
    starts = [0, *(found.end() for found in re.finditer(rb"\n", content))]  # of the lines
    tokens = tokenize.tokenize(BytesIO(content).readline)
    encoding = next(tokens).string
    if encoding == "utf-8-sig":
        raise SyntaxError("its mark is not counted in the positions of the first line")
    found = []
    for token in tokens:
        if token.type in (tokenize.STRING, tokenize.COMMENT):
            row, column = token.start
            start = starts[row - 1] + len(token.line.split("\n")[0][:column].encode(encoding))
            end = start + len(token.string.encode(encoding))
            kind = re.split(r"['\"#]", token.string, maxsplit=1)[0] if token.type == tokenize.STRING else "#"
            found.append((start, end, kind))
    return found


# -- shells ---------------------------------------------------------------------------------------------------------

Shell: TypeAlias = Literal["sh", "csh", "fish"]


def _sh(content: bytes, places: Sequence[Place]) -> Replacements:
    return _in_shell("sh", content, places)


def _csh(content: bytes, places: Sequence[Place]) -> Replacements:
    return _in_shell("csh", content, places)


def _fish(content: bytes, places: Sequence[Place]) -> Replacements:
    return _in_shell("fish", content, places)


def _in_shell(shell: Shell, content: bytes, places: Sequence[Place]) -> Replacements:
    found: list[bytes] = []
    for context, (_, _, new) in zip(_contexts(shell, content, places), places, strict=True):
        if shell == "csh" and b"\n" in new:
            return None
        if context == "word":
            found.append(b"'" + in_single_quotes(shell, new) + b"'")
        elif context == "'":
            found.append(in_single_quotes(shell, new))
        elif context == '"':
            # Neither csh nor Python (in the lines that pip writes) has a backslash for all of them here.
            special = {"sh": rb'["$`\\]', "csh": rb'["$`\\!]', "fish": rb'["$\\]'}[shell]
            found.append(re.sub(special, lambda char: b"\"'" + in_single_quotes(shell, char[0]) + b"'\"", new))
        elif context == "#" and b"\n" not in new:
            found.append(new)
        else:
            return None
    return found


def in_single_quotes(shell: Shell, new: bytes) -> bytes:
    """``new`` escaped for single quotes of a shell."""
    if shell == "fish":
        new = new.replace(b"\\", b"\\\\")
    elif shell == "csh":
        new = new.replace(b"!", b"\\!")
    return new.replace(b"'", b"'\"'\"'")


_OPENERS = re.compile(
    rb"(?P<group>\$?\()|(?P<brace>\$\{)|(?P<unknown>\$'|<<)|(?P<quote>['\"`])|(?P<comment>(?<![^\s;&|(])#)"
)
_OPENERS_IN_DOUBLE_QUOTES = re.compile(rb"(?P<group>\$\()|(?P<brace>\$\{)|(?P<quote>`)")
_CLOSERS = {"group": ")", "brace": "}", "unknown": "", "comment": "\n"}
"""The closer of each opener. $'...' and here-documents (<<) have rules of their own, and no closer here."""


_ESCAPES = {"sh": ("word", ")", "`", "}", '"'), "csh": ("word", ")", "`"), "fish": ("word", ")", "'", '"')}
"""The contexts in which a backslash escapes the next character."""


def _contexts(shell: Shell, content: bytes, places: Sequence[Place]) -> list[str]:
    """The context of each place: a word, single or double quotes, a comment (``#``), or ``?``."""
    found: list[str] = []
    names = {"word": "word", ")": "word", "'": "'", '"': '"', "\n": "#"}
    open_ = ["word"]  # the closers of all that is open
    position = 0
    for offset, old, _ in places:
        while position < offset:
            position += _step(shell, content, position, open_)
        # A backslash before the path escapes its first character.
        found.append(names.get(open_[-1], "?") if position == offset else "?")
        position = offset + len(old)
    return found


def _step(shell: Shell, content: bytes, position: int, open_: list[str]) -> int:
    """Read one token at ``position``, and note what it opens or closes. Returns its length."""
    inside = open_[-1]
    char = chr(content[position])
    if char == "\\" and inside in _ESCAPES[shell]:
        return 2
    if char == inside:
        open_.pop()
    elif inside not in ("'", "\n", ""):
        opener = (_OPENERS_IN_DOUBLE_QUOTES if inside == '"' else _OPENERS).match(content, position)
        if opener is not None:
            open_.append(_CLOSERS.get(opener.lastgroup or "", char))
            return opener.end() - position
    return 1


_BY_NAME: dict[str, Language] = {"activate": _sh}
_BY_SUFFIX: dict[str, Language] = {
    ".sh": _sh,
    ".bash": _sh,
    ".zsh": _sh,
    ".csh": _csh,
    ".tcsh": _csh,
    ".fish": _fish,
    ".py": _python,
    ".json": _json,
}
_BY_INTERPRETER: dict[bytes, Language] = {
    **dict.fromkeys((b"sh", b"bash", b"dash", b"zsh", b"ksh"), _sh),
    **dict.fromkeys((b"python", b"pypy"), _python),
    b"csh": _csh,
    b"tcsh": _csh,
    b"fish": _fish,
}
