"""Warnings about paths that relocation does not patch.

These are other spellings of the tree's path, and paths that lead out of the tree: symlinks, editable installs, an
interpreter that is gone, the place where an environment stood before.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from urllib.parse import unquote, urlsplit

from holo.errors import MALFORMED
from holo.relocation import leads_into, listed
from holo.relocation.quoting import in_single_quotes
from holo.spellings import spellings

_PATHS = (".pth", ".egg-link")
"""Files with a path in each line."""

_VIRTUAL_ENV = re.compile(rb"^[ \t]*(?:export[ \t]+)?VIRTUAL_ENV=(.*)$", re.MULTILINE)
_INTERPRETER = re.compile(rb"#![ \t]*(/[^\n]*)/bin/(?:python|pypy)[0-9.]*[ \t\n]")
_OF_SYSTEM = ("/usr", "/usr/local")


def other_spellings(root: str, what: str) -> list[tuple[str, bytes]]:
    """Spellings of a root that are reported, not patched: (description, needle)."""
    raw = os.fsencode(root)
    real = os.path.realpath(root)
    patched = spellings(root)
    found = dict.fromkeys(patched, what)
    found.setdefault(os.fsencode(real), f"{what} by its real path")
    found.setdefault(os.fsencode(json.dumps(root, ensure_ascii=False)[1:-1]), f"{what} as JSON has it")
    for shell in ("sh", "csh", "fish"):
        found.setdefault(in_single_quotes(shell, raw), f"{what} quoted for a shell")
    found.setdefault(raw.replace(b"'", b"\\'"), f"{what} quoted for a shell")
    found.setdefault(re.sub(rb'(["$`\\])', rb"\\\1", raw), f"{what} quoted for a shell")
    return [(f"{which} ({os.fsdecode(needle)})", needle) for needle, which in found.items() if needle not in patched]


def may_point_outside(folder: str, name: str) -> bool:
    """Whether :func:`outside` is to read that file, for its kind may name places outside of the tree."""
    if folder.endswith("bin") and folder[-4:-3] in ("", "/"):
        return True
    return name.endswith(_PATHS) or name == "direct_url.json" or name in _READ_BY_NAME


def outside(path: str, content: bytes, prefix: str, others: Sequence[str] = ()) -> Iterator[str]:
    """Warnings about the places outside of the tree that a file at ``path`` below ``prefix`` names.

    ``others``: places that move along with the tree, which deserve none.
    """
    name = os.path.basename(path)
    if name == "direct_url.json":
        yield from _of_direct_url(path, content, (prefix, *others))
    elif name in _READ_BY_NAME:
        yield from _READ_BY_NAME[name](path, content, prefix)
    elif name.endswith(_PATHS):
        for line in os.fsdecode(content).splitlines():
            # Relative paths start at the folder of the .pth (site.addpackage); lines with code begin with "import".
            if line.startswith("/") or (name.endswith(".pth") and line.startswith("..")):
                target = os.path.normpath(os.path.join(prefix, os.path.dirname(path), line))
                # A relative path is not patched, so it is right at the same place of a checkout only.
                yield from _editable(path, target, (prefix, *(others if line.startswith("/") else ())))
    else:
        found = _INTERPRETER.match(content)
        if found is not None and os.fsdecode(found[1]) not in _OF_SYSTEM:
            yield from _made_elsewhere(path, os.fsdecode(found[1]), prefix)


def links_out(links: Iterable[tuple[str, str]], prefix: str, others: Sequence[str] = ()) -> list[str]:
    """Warnings about symlinks, as (path, target), that lead out of the tree at ``prefix``, and not to ``others``."""
    relative, gone = [], []
    for path, target in links:
        if target.startswith("/"):
            if not leads_into(target, prefix) and not os.path.exists(target):
                gone.append(f"{path} -> {target}")
        elif not _is_in(os.path.normpath(os.path.join(prefix, os.path.dirname(path), target)), (prefix, *others)):
            relative.append(f"{path} -> {target}")
    found = []
    if relative:
        found.append(f"relative symlinks lead out of the tree, and elsewhere from another place: {listed(relative)}")
    if gone:
        found.append(f"symlinks are dangling: {listed(gone)}")
    return found


def _of_direct_url(path: str, content: bytes, roots: Sequence[str]) -> Iterator[str]:
    try:
        document = json.loads(content)
        if document["dir_info"]["editable"]:
            yield from _editable(path, unquote(urlsplit(document["url"]).path), roots)
    except MALFORMED:  # whatever a program wrote there
        return


def _of_configuration(path: str, content: bytes, _: str) -> Iterator[str]:
    found = re.search(rb"^home[ \t]*=[ \t]*(/.*)", content, re.MULTILINE)
    if found is not None and not os.path.isdir(home := found[1].rstrip()):
        yield f"{path} names an interpreter in {os.fsdecode(home)}, which does not exist"


def _of_activation(path: str, content: bytes, prefix: str) -> Iterator[str]:
    for value in _VIRTUAL_ENV.findall(content):
        try:
            words = shlex.split(os.fsdecode(value))
        except ValueError:
            continue
        if words and words[0].startswith("/"):
            yield from _made_elsewhere(path, words[0], prefix)
            return


_READ_BY_NAME: dict[str, Callable[[str, bytes, str], Iterator[str]]] = {
    "pyvenv.cfg": _of_configuration,
    "activate": _of_activation,
}


def _is_in(path: str, roots: Iterable[str]) -> bool:
    return any(leads_into(path, root) for root in roots)


def _editable(path: str, target: str, roots: Iterable[str]) -> Iterator[str]:
    if not _is_in(target, roots):
        yield f"{path} is an editable install that points outside the environment: {target}"


def _made_elsewhere(path: str, origin: str, prefix: str) -> Iterator[str]:
    """``path``, in the folder ``bin`` of an environment, names an environment at ``origin``."""
    if "\0" in origin:  # it is no path, whatever the file is
        return
    environment = os.path.normpath(os.path.join(prefix, os.path.dirname(path), ".."))
    is_same = os.path.realpath(origin) == os.path.realpath(environment)
    if not is_same and os.path.lexists(os.path.join(environment, "bin", "python")):
        yield f"{environment} was made at {origin}: its scripts point there"
