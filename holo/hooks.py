"""What makes environments appear by themselves: hooks of git, of direnv, and of Claude Code.

Each is a text, in a file that may be the user's own. holo puts in what is its own, replaces it, and takes it out again,
and leaves everything else as it is.
"""

from __future__ import annotations

import json
import os
import re
import stat
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from holo.errors import MALFORMED, Conflict, HoloError, NotFound, UsageError, os_errors_as
from holo.files import SMALL, read_file, write_atomically
from holo.projects import project_of
from holo.walk import absolute, current_directory
from holo.worktrees import git

Kind: TypeAlias = Literal["git", "direnv", "claude"]

_GIT = f"""\
# >>> holo: a new worktree gets its environments. `holo hook git --remove` takes these lines out.
case $1 in *[!0]*) ;; *)
    [ -n "${{{git.BUSY}-}}" ] || [ ! -f .git ] || holo worktree add . >&2 || : ;;
esac
# <<< holo
"""
_BLOCK = re.compile(r"^# >>> holo: .*?^# <<< holo\n", re.DOTALL | re.MULTILINE)
_SHELL = re.compile(r"#![ \t]*(?>[^\s]*/)?(?:env[ \t]+(?>[^\s]*/)?)?(?:sh|bash|dash|zsh|ksh)\b[^\n]*\n")

_DIRENV_MARK = "# holo: `use holo` in .envrc."
_DIRENV = f"""\
{_DIRENV_MARK} `holo hook direnv --remove` removes this file.
use_holo() {{
    if [ -f .git ]; then # a worktree that is not the first one: it may lack environments
        local made
        made=$(holo worktree add .) || log_error "holo could not make all environments"
        case $made in '' | *': nothing to add') ;; *) printf '%s\n' "$made" >&2 ;; esac
    fi
    if [ -d .venv ]; then
        export VIRTUAL_ENV="$PWD/.venv"
        unset PYTHONHOME
        PATH_add .venv/bin
    fi
    if [ -d node_modules/.bin ]; then
        PATH_add node_modules/.bin
    fi
}}
"""

EVENT = "holo hook claude --run"
"""The command that Claude Code calls."""

_EVENTS = ("WorktreeCreate", "WorktreeRemove")


class HookReport(NamedTuple):
    """A hook that was installed, or removed."""

    hook: Kind
    path: str
    changed: bool
    """else it was as wanted"""

    def to_json(self) -> dict[str, Any]:
        """The document `holo hook --json` prints."""
        return self._asdict()


class Event(NamedTuple):
    """What Claude Code asks for."""

    is_removal: bool
    path: str
    """of the worktree to remove; else of the folder to make one for"""
    name: str


def kind_of(text: str) -> Kind:
    """Raises :class:`UsageError` for an unknown one."""
    for kind in get_args(Kind):
        if kind == text:
            return kind  # type: ignore[no-any-return]
    raise UsageError(f"there is no hook for {text}", f"There are hooks for {', '.join(get_args(Kind))}.")


def text_of(kind: Kind) -> str:
    """What is to be in the file of the hook."""
    if kind == "git":
        return f"#!/bin/sh\n{_GIT}"
    return _DIRENV if kind == "direnv" else _printed({"hooks": {event: [_ours()] for event in _EVENTS}})


def install(kind: Kind) -> HookReport:
    """Put the hook where its program finds it, for the current project, or for this user (direnv)."""
    path = _place(kind)
    before = _read(kind, path)
    after = {"git": _with_block, "direnv": _with_function, "claude": _with_hooks}[kind](path, before)
    return _written(kind, path, before, after)


def remove(kind: Kind) -> HookReport:
    """Take the hook out again. A file with nothing else in it goes."""
    path = _place(kind)
    before = _read(kind, path)
    after = before
    if before is not None and kind == "git":
        after = _BLOCK.sub("", before)
        after = after if re.fullmatch(r"#![^\n]*\s*", after) is None else None
    elif before is not None and kind == "direnv":
        after = None if before.startswith(_DIRENV_MARK) else before
    elif before is not None:
        document = _parsed(path, before)
        after = _printed(document) if _take_out(document) else before
        after = None if document == {} else after
    return _written(kind, path, before, after)


def event_of(document: bytes) -> Event:
    """What Claude Code tells a hook: https://code.claude.com/docs/en/hooks#worktreecreate. It may be any text."""
    try:
        found = json.loads(document)
        event = found["hook_event_name"]
        if event == "WorktreeRemove":
            return Event(True, _text(found["worktree_path"]), "")
        if event == "WorktreeCreate":
            # The documentation says worktree_name, and what is sent is name.
            name = _text(found["name"] if "name" in found else found["worktree_name"])
            safe = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")  # git has rules about dots in names of branches
            if safe:
                return Event(False, _text(found["cwd"]), safe)
    except MALFORMED:
        pass
    raise UsageError(
        "that is no event of Claude Code about a worktree",
        "Claude Code calls this command, and tells it the event on standard input.",
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError
    return value


# -- files ----------------------------------------------------------------------------------------------------------


def _place(kind: Kind) -> str:
    here = current_directory()
    if kind == "git":
        folder = git.run(here, "rev-parse", "--git-path", "hooks").removesuffix("\n")
        return os.path.join(absolute(folder), "post-checkout")
    if kind == "claude":
        project = project_of(os.path.join(here, ".claude"))
        if project is None:
            raise NotFound(f"{here} lies in no project", "Run it in a checkout of the repository.")
        return os.path.join(project, ".claude", "settings.json")
    own = os.environ.get("DIRENV_CONFIG")
    user = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(own or os.path.join(user, "direnv"), "lib", "holo.sh")


def _read(kind: Kind, path: str) -> str | None:
    try:
        return os.fsdecode(read_file(path, SMALL)[0])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Conflict(
            f"cannot change {path}: {error.strerror}", f"`holo hook {kind}` shows what belongs in it."
        ) from error


def _written(kind: Kind, path: str, before: str | None, after: str | None) -> HookReport:
    with os_errors_as(f"cannot change {path}"):
        if after is None and before is not None:
            os.unlink(path)
        elif after is not None and after != before:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            kept = stat.S_IMODE(os.stat(path).st_mode) if before is not None else None
            write_atomically(path, os.fsencode(after), mode=0o755 if kind == "git" else 0o644, exact_mode=kept)
    return HookReport(kind, path, before != after)


def _with_block(path: str, before: str | None) -> str:
    if before is None:
        return text_of("git")
    if _BLOCK.search(before) is not None:
        return _BLOCK.sub(lambda _: _GIT, before)
    first = _SHELL.match(before)
    if first is None or not os.access(path, os.X_OK):
        what = "is not executable, so that git does not run it" if first is not None else "is no script of a shell"
        raise Conflict(
            f"{path} {what}",
            "Let it call `holo worktree add .` itself where its first argument is all zeros, or move it away.",
        )
    return before[: first.end()] + _GIT + before[first.end() :]


def _with_function(path: str, before: str | None) -> str:
    if before is not None and not before.startswith(_DIRENV_MARK):
        raise Conflict(
            f"{path} is not holo's", "Move it away, or put what `holo hook direnv` prints into another file."
        )
    return _DIRENV


# -- Claude Code ----------------------------------------------------------------------------------------------------


def _ours() -> dict[str, Any]:
    return {"hooks": [{"type": "command", "command": EVENT, "timeout": 600}]}


def _with_hooks(path: str, before: str | None) -> str:
    document = _parsed(path, before) if before is not None else {}
    if before is not None and all(_ours() in document.get("hooks", {}).get(event, []) for event in _EVENTS):
        return before
    _take_out(document)
    hooks = document.setdefault("hooks", {})
    for event in _EVENTS:
        others = hooks.setdefault(event, [])
        if others and event == "WorktreeCreate":
            raise Conflict(
                f"{path} has a hook for {event} already", "Only one can make a worktree. Remove that one first."
            )
        others.append(_ours())
    return _printed(document)


def _take_out(document: dict[str, Any]) -> bool:
    """Take holo's entries out, and what is empty without them. Returns whether there were any."""
    hooks = document.get("hooks", {})
    before = json.dumps(document)
    for event in [event for event in _EVENTS if event in hooks]:
        for group in hooks[event]:
            group["hooks"] = [hook for hook in group["hooks"] if hook.get("command") != EVENT]
        hooks[event] = [group for group in hooks[event] if group["hooks"]]
        if not hooks[event]:
            del hooks[event]
    is_changed = json.dumps(document) != before
    if is_changed and not hooks:
        document.pop("hooks")
    return is_changed


def _parsed(path: str, text: str) -> dict[str, Any]:
    """The settings of Claude Code, of the form that is needed here."""
    try:
        document = json.loads(text)
        is_right = isinstance(document, dict) and isinstance(document.get("hooks", {}), dict)
        groups = [group for event in _EVENTS for group in document.get("hooks", {}).get(event, [])] if is_right else []
        is_right = is_right and all(isinstance(hook, dict) for group in groups for hook in group["hooks"])
    except MALFORMED as error:
        raise HoloError(f"cannot read {path}: {error}", "Correct it.") from None
    if not is_right:
        raise HoloError(f"{path} does not have the form of Claude Code's settings", "Correct it.")
    return document  # type: ignore[no-any-return]


def _printed(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
