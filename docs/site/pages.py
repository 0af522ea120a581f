"""What the site has besides the pages in docs/: those that lie elsewhere, and a reference made from the code.

mkdocs calls the functions ``on_...``. Links are written for readers of the repository, and changed here so that they
lead to the same in the site.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support import reference  # noqa: E402 - it is found only now

ELSEWHERE = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "benchmarks/README.md": "benchmarks.md"}
"""Pages outside of docs/, and what they are in the site."""

LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)")
"""A link in a page to another file."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made from the code, those from elsewhere, and the files that any page links to."""
    for page, text in reference.pages().items():
        files.append(File.generated(config, page, content=text))
    linked = set()
    for source in [*(path.relative_to(ROOT) for path in ROOT.glob("docs/**/*.md")), *ELSEWHERE]:
        text = (ROOT / source).read_text(encoding="utf-8")
        linked |= {_target(str(source), link) for link in LINK.findall(text)}
        if source in ELSEWHERE:
            files.append(File.generated(config, ELSEWHERE[str(source)], content=text))
    for path in sorted(linked):
        if files.get_file_from_path(_in_site(path)) is None and (ROOT / path).is_file():
            files.append(File.generated(config, path, content=(ROOT / path).read_bytes()))
    named = set(re.findall(r"'([\w./-]+\.md)'", repr(config["nav"])))
    if others := sorted({page.src_uri for page in files.documentation_pages()} - named):
        config["nav"].append({"More": others})
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Make the links of a page lead to the same in the site."""
    site = page.file.src_uri
    source = {there: path for path, there in ELSEWHERE.items()}.get(site, f"docs/{site}")

    def changed(link: re.Match[str]) -> str:
        return "](" + os.path.relpath(_in_site(_target(source, link[1])), os.path.dirname(site) or ".")

    return LINK.sub(changed, markdown)


def _target(source: str, link: str) -> str:
    """The path in the repository of what a page links to."""
    return os.path.normpath(os.path.join(os.path.dirname(source), link))


def _in_site(path: str) -> str:
    return ELSEWHERE.get(path, path.removeprefix("docs/"))
