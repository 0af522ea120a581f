"""What names paths that are not patched: other spellings of the prefix, and editable installs outside of it."""

from __future__ import annotations

import os
from collections.abc import Iterator


def other_spellings(prefix: str) -> list[tuple[str, bytes]]:
    """Spellings of the prefix that are reported, not patched: (what it is, needle)."""
    from urllib.parse import quote

    spellings = []
    quoted = quote(os.fsencode(prefix))
    if quoted.encode() != os.fsencode(prefix):
        spellings.append((f"the prefix URL-encoded ({quoted})", quoted.encode()))
    real = os.path.realpath(prefix)
    if real != prefix:
        spellings.append((f"the prefix by its real path ({real})", os.fsencode(real)))
    return spellings


def may_point_outside(name: str) -> bool:
    """Whether a file of that name may be part of an editable install, for :func:`outside` to read."""
    return name == "direct_url.json" or name.endswith((".pth", ".egg-link"))


def outside(path: str, name: str, content: bytes, prefix: str) -> Iterator[str]:
    """Editable installs that lead out of the environment: a restored space shares them with its source."""
    if name == "direct_url.json":
        import json
        from urllib.parse import unquote, urlsplit

        try:
            document = json.loads(content)
            if not document["dir_info"]["editable"]:
                return
            targets = [unquote(urlsplit(document["url"]).path)]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # whatever a program wrote there
            return
    else:
        targets = [line for line in os.fsdecode(content).splitlines() if line.startswith("/")]
    for target in targets:
        if target != prefix and not target.startswith(prefix + "/"):
            yield f"{path} is an editable install that points outside the environment: {target}"
