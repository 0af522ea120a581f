"""Licences as packages declare them: an SPDX expression where it is one, else a name in somebody's own words.

The grammar: https://spdx.github.io/spdx-spec/v2.3/SPDX-license-expressions/
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from holo.sbom.identifiers import EXCEPTIONS, LICENSES

LONGEST = 200
"""Characters of a name. Where a whole text stands instead of a name, it is cut."""

_LONGEST_EXPRESSION = 1000
_MOST_NAMES = 20

_TOKEN = re.compile(r"\s*([()]|[A-Za-z0-9.:+-]+)\s*")
_OPERATORS = {"AND": "AND", "and": "AND", "OR": "OR", "or": "OR"}
_WITH = ("WITH", "with")
_REFERENCE = re.compile(r"(?:DocumentRef-[A-Za-z0-9.-]+:)?LicenseRef-[A-Za-z0-9.-]+")
_SECRET = re.compile(r"(?<=://)[^/\s]*@|(?<=/)t/[^/\s]+/|(?<=\S)\?\S+")
"""What may be one in the URL of a text: a user's name and password, a token in the path, a query."""

_NOTHING = {"", "unknown", "none", "null"}
"""What tools write if nobody declares a licence."""


class Licence(NamedTuple):
    """What one package declares; nothing of both if it declares none."""

    expression: str = ""
    """of SPDX, in its canonical spelling"""
    names: tuple[str, ...] = ()

    def all(self) -> tuple[str, ...]:
        """The same as names."""
        return (self.expression,) if self.expression else self.names


def licence_of(text: object) -> Licence:
    """The licence that a text declares."""
    if not isinstance(text, str):
        return Licence()
    found = expression(text)
    return Licence(found) if found is not None else Licence(names=_names([text]))


def licence_of_python(declared: str | None, text: str | None, classifiers: Iterable[str]) -> Licence:
    """The licence in METADATA: ``License-Expression``, or else ``License`` and the classifiers."""
    if declared is not None:
        return licence_of(declared)
    if text is not None and (found := expression(text)) is not None:
        return Licence(found)
    approved = [item.split("::") for item in classifiers if item.startswith("License ::")]
    names = [parts[-1].strip() for parts in approved]
    names = [name for name in names if name not in ("License", "OSI Approved")]
    if text is not None and not (names and "\n" in text.strip()):  # a whole text says less than a classifier
        names.append(text)
    return Licence(names=_names(names))


def expression(text: str) -> str | None:
    """``text`` in the canonical spelling if it is an SPDX expression, else ``None``."""
    if len(text) > _LONGEST_EXPRESSION:
        return None
    words: list[str] = []
    at = depth = 0
    wanted = "operand"
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            return None
        at = token.end()
        step = _step(wanted, token[1])
        if step is None:
            return None
        word, wanted = step
        depth += {"(": 1, ")": -1}.get(word, 0)
        if depth < 0:
            return None
        words.append(word)
    if depth or wanted not in ("operator", "operator or with"):
        return None
    return " ".join(words).replace("( ", "(").replace(" )", ")")


def _step(wanted: str, token: str) -> tuple[str, str] | None:
    """How a token is spelled, and what may follow it; ``None`` if it cannot stand there."""
    if wanted == "operand":
        if token == "(":  # noqa: S105 - no password
            return token, "operand"
        licence = _licence(token)
        return (licence, "operator or with") if licence is not None else None
    if wanted == "exception":
        exception = _spellings(EXCEPTIONS).get(token.lower())
        return (exception, "operator") if exception is not None else None
    if token == ")":  # noqa: S105
        return token, "operator"
    if token in _WITH and wanted == "operator or with":
        return "WITH", "exception"
    operator = _OPERATORS.get(token)
    return (operator, "operand") if operator is not None else None


def _licence(token: str) -> str | None:
    if _REFERENCE.fullmatch(token):
        return token
    known = _spellings(LICENSES)
    found = known.get(token.lower())
    if found is None and token.endswith("+"):
        or_later = known.get(token[:-1].lower())
        found = or_later + "+" if or_later is not None else None
    return found


@cache
def _spellings(identifiers: str) -> dict[str, str]:
    return {identifier.lower(): identifier for identifier in identifiers.split()}


def _names(texts: Iterable[str]) -> tuple[str, ...]:
    """Names that can be shown, each once: the first line of each text."""
    found: dict[str, None] = {}
    for text in texts:
        line = next((line for line in text.splitlines() if line.strip()), "")
        shown = "".join(char for char in " ".join(line.split()) if char.isprintable())
        name = _SECRET.sub("", shown)[:LONGEST].strip()
        if name.lower() not in _NOTHING and len(found) < _MOST_NAMES:
            found[name] = None
    return tuple(found)
