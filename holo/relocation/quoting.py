"""Quote a path for the places of a text where it goes, by the rules of the text's language.

Only paths with a blank, a quote, ``$``, a backtick or the like need this. The function of a language gets the content
and the offsets of the old path. It returns the replacement for each of them, or ``None`` if it does not know one.
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
from urllib.parse import quote

_RAW_SUFFIXES = (".pth", ".egg-link", ".txt", ".md", ".rst", ".html", ".bat")
_RAW_NAMES = ("RECORD", "pyvenv.cfg")
"""Files without quotes: a path ends with the line, or the file is for people, or for Windows."""

_FIRST_LINE = re.compile(
    rb"#![ \t]*(?:[^\n]*[/ \t])?(python|pypy|sh|bash|dash|zsh|ksh|fish|t?csh)[0-9.]*(?:[ \t][^\n]*)?\n"
)

_POLYGLOT = re.compile(rb"#!/bin/sh\n'''exec' [^\n]*\n' '''\n")
"""The first lines of a Python script that pip or uv wrote for an interpreter whose path ``#!`` cannot hold."""

Replacements: TypeAlias = list[bytes] | None
Language: TypeAlias = Callable[[bytes, Sequence[int], int, bytes], Replacements]


def replacements(path: str, content: bytes, offsets: Sequence[int], length: int, new: bytes) -> Replacements:
    """The replacement at each of the ``offsets`` of a path of ``length`` bytes; ``None`` if one is not known.

    ``path``: of the file, whose name may tell the language. ``content``: at least up to the end of the last path.
    """
    if offsets and offsets[-1] + length > len(content):
        return None
    polyglot = _POLYGLOT.match(content)
    if polyglot is None:
        language = _language(path, content)
        return language(content, offsets, length, new) if language is not None else None
    # Lines of sh above a text in Python.
    within = [offset for offset in offsets if offset < polyglot.end()]
    below = [offset - polyglot.end() for offset in offsets[len(within) :]]
    above = _sh(content[: polyglot.end()], within, length, new)
    rest = _python(content[polyglot.end() :], below, length, new)
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


def _raw(_: bytes, offsets: Sequence[int], __: int, new: bytes) -> Replacements:
    return [new] * len(offsets)


def _json(_: bytes, offsets: Sequence[int], __: int, new: bytes) -> Replacements:
    text = json.dumps(os.fsdecode(new), ensure_ascii=False)[1:-1]
    return [os.fsencode(text)] * len(offsets)


def _url(_: bytes, offsets: Sequence[int], __: int, new: bytes) -> Replacements:
    return [quote(new).encode()] * len(offsets)


# -- Python ---------------------------------------------------------------------------------------------------------


_IN_STRING = re.compile(rb"['\"\\\r\n]")
_IN_BYTES = re.compile(rb"['\"\\\r\n\x80-\xff]")
_IN_COMMENT = re.compile(rb"[\r\n]")


def _python(content: bytes, offsets: Sequence[int], length: int, new: bytes) -> Replacements:
    if not offsets or re.search(rb"['\"\\{}\n\r\x80-\xff]", new) is None:
        return [new] * len(offsets)
    try:
        places = _literals(content)
    except (tokenize.TokenError, SyntaxError, UnicodeError):
        return None
    found: list[bytes] = []
    starts = [start for start, _, _ in places]
    for offset in offsets:
        at = bisect_right(starts, offset) - 1
        kind = places[at][2] if at >= 0 and offset + length <= places[at][1] else None
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


def _sh(content: bytes, offsets: Sequence[int], length: int, new: bytes) -> Replacements:
    return _in_shell("sh", content, offsets, length, new)


def _csh(content: bytes, offsets: Sequence[int], length: int, new: bytes) -> Replacements:
    return _in_shell("csh", content, offsets, length, new)


def _fish(content: bytes, offsets: Sequence[int], length: int, new: bytes) -> Replacements:
    return _in_shell("fish", content, offsets, length, new)


def _in_shell(shell: Shell, content: bytes, offsets: Sequence[int], length: int, new: bytes) -> Replacements:
    if shell == "csh" and b"\n" in new:
        return None
    found: list[bytes] = []
    for context in _contexts(shell, content, offsets, length):
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


def _contexts(shell: Shell, content: bytes, offsets: Sequence[int], length: int) -> list[str]:
    """The context of each offset: a word, single or double quotes, a comment (``#``), or ``?``."""
    found: list[str] = []
    names = {"word": "word", ")": "word", "'": "'", '"': '"', "\n": "#"}
    open_ = ["word"]  # the closers of all that is open
    position = 0
    for offset in offsets:
        while position < offset:
            position += _step(shell, content, position, open_)
        # A backslash before the path escapes its first character.
        found.append(names.get(open_[-1], "?") if position == offset else "?")
        position = offset + length
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


_BY_NAME: dict[str, Language] = {"activate": _sh, "direct_url.json": _url}
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
