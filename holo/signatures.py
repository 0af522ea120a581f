"""Signatures that ``ssh-keygen -Y`` makes and checks: who vouches for a catalog, and for what a name means.

    catalog_statement    a catalog's digest, in the namespace ``holo-catalog``
    pointer_statement    which digest a name or key means, and since when, in the namespace ``holo-name``

Keys, agents, hardware tokens and the file of allowed signers are those that people have for ssh and git. The format is
PROTOCOL.sshsig: https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.sshsig
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import struct
import time as clock
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from holo import platform
from holo.errors import HoloError, NotFound, Untrusted, advice, hints, os_errors_as
from holo.files import read_file

if TYPE_CHECKING:
    import subprocess

    from holo.settings import Settings

CATALOG = "holo-catalog"
NAME = "holo-name"

LARGEST = 64 << 10
"""Bytes of a signature. The largest RSA key takes a tenth; a certificate can name many principals."""

_MOST_SIGNERS = 16 << 20
"""Bytes of a file of allowed signers: a hundred thousand keys."""

_TOLERANCE = 300
"""Seconds by which the clock of a signer may be ahead."""

_BEGIN, _END = b"-----BEGIN SSH SIGNATURE-----", b"-----END SSH SIGNATURE-----"
_MAGIC = b"SSHSIG"
_LENGTH = struct.Struct(">L")

_AGAIN = "Get it again from where it comes from."
_ASK = "Ask whoever made it to sign it, or add the signer's public key to that file if you trust them."
_WHICH = "Name a private key that is yours alone, or a public one whose private half ssh-agent has."
_UNLOCK = "A passphrase is asked for on a terminal only. Add the key to ssh-agent, and name its public half (.pub)."
_OF_THIS_KEY = ("key has expired", "key is not yet valid", "ertificate", "not permitted for use in signature namespace")
"""What ssh-keygen says of a line only if the key in it is the one that signed."""


class ToolMissing(HoloError):
    """There is no ssh-keygen, or none that can be used, so nobody can tell anything about a signature."""


class Key(NamedTuple):
    """The key that made a signature."""

    type: str
    """as ssh-keygen calls it: ED25519"""
    fingerprint: str
    """SHA256:..."""


class Signer(NamedTuple):
    """Who made a signature."""

    principal: str
    key: Key


class AllowedSigners(NamedTuple):
    """A file in the format of ssh's ``allowed_signers``; it is read at each use."""

    path: str

    def verify(self, data: bytes, namespace: str, signature: bytes, what: str) -> str:
        """The principal who signed ``data``; ``what`` is what messages call it. Raises :class:`Untrusted`."""
        return self.signer(data, namespace, signature, what).principal

    def signer(self, data: bytes, namespace: str, signature: bytes, what: str) -> Signer:
        """The same, with the key."""
        blob = _parse(signature, namespace, what)
        with _Folder() as folder:
            signed = folder.write("signature", _armor(blob))
            allowed = folder.write("allowed_signers", self.read())
            found = _run("find-principals", ["-s", signed, "-f", allowed])
            said = found.stderr
            names = found.stdout.decode("utf-8", "surrogateescape").splitlines()
            for principal in sorted(names, key=lambda name: name.startswith("!")):  # those say who is not meant
                options = ["-n", namespace, "-s", signed, "-f", allowed, "-I", principal]
                done = _run("verify", options, data)
                if done.returncode == 0:
                    return Signer(principal, _key_in(done.stdout))
                said += done.stderr
            if b"incorrect signature" in said:
                raise _wrong(what)
            lines = [line.replace(allowed, self.path) for line in said.decode("utf-8", "replace").splitlines()]
            about_key = [line for line in lines if any(phrase in line for phrase in _OF_THIS_KEY)]
            if about_key:
                raise Untrusted(f"{what} was signed with a key that may not sign it: {about_key[0]}", _ASK)
            checked = _run("check-novalidate", ["-n", namespace, "-s", signed], data)
        if checked.returncode != 0:
            raise _wrong(what)
        key = _key_in(checked.stdout)
        raise Untrusted(f"{what} is not signed by anyone in {self.path}, but with {key.type} {key.fingerprint}", _ASK)

    def read(self) -> bytes:
        """The whole file. Raises :class:`HoloError`."""
        hint = "It is the file that `remote.allowed-signers` in settings.yaml or --allowed-signers names."
        with os_errors_as(f"cannot read the allowed signers {self.path}", hint):
            return read_file(self.path, _MOST_SIGNERS, follow=True)[0]


class Trust(NamedTuple):
    """What a user demands of what comes from elsewhere."""

    signers: AllowedSigners | None
    """``None``: signatures are not asked for"""
    max_age: int | None
    """in seconds: of signed names and keys"""

    def require_catalog(self, digest: str, signature: bytes | None, origin: str) -> str | None:
        """The principal who signed a catalog; ``None`` if nobody has to.

        Raises :class:`Untrusted` for one that none of the allowed signers has signed, and in any case for a signature
        of something else. ``origin`` is where it was found.
        """
        what = f"catalog {digest[:12]} of {origin}"
        statement = catalog_statement(digest)
        if self.signers is None:
            if signature is not None and not is_signature(signature, statement, CATALOG):
                raise _wrong(what)
            return None
        if signature is None:
            raise self._unsigned(what)
        return self.signers.verify(statement, CATALOG, signature, what)

    def require_pointer(
        self, kind: PointerKind, name: str, digest: str, time: int, signature: bytes | None, origin: str
    ) -> str | None:
        """The same for what a name or key means: it has to be signed, and neither old nor from the future."""
        if self.signers is None:
            return None
        what = f"{kind} {name} of {origin}"
        if signature is None:
            raise self._unsigned(what)
        principal = self.signers.verify(pointer_statement(kind, name, digest, time), NAME, signature, what)
        check_age(time, self.max_age, what)
        return principal

    def _unsigned(self, what: str) -> Untrusted:
        assert self.signers is not None
        return Untrusted(
            f"{what} is not signed, and somebody in {self.signers.path} has to sign it",
            "Ask whoever made it to sign it, with --sign KEY.",
        )


def trust_of(settings: Settings) -> Trust:
    """What the settings demand. Reads nothing."""
    signers = AllowedSigners(settings.allowed_signers) if settings.allowed_signers is not None else None
    return Trust(signers, settings.max_age)


# -- what is signed -----------------------------------------------------------------------------------------

PointerKind = Literal["name", "key"]


def catalog_statement(digest: str) -> bytes:
    """What a signature of a catalog signs."""
    return digest.encode("ascii") + b"\n"


def pointer_statement(kind: PointerKind, name: str, digest: str, time: int) -> bytes:
    """What a signature of a name or of a blueprint's key signs; ``time``: when it was signed, UTC seconds."""
    document = {"digest": digest, "kind": kind, "name": name, "time": time}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode("ascii") + b"\n"


def check_age(time: int, max_age: int | None, what: str) -> None:
    """Raise :class:`Untrusted` for a signed time that is longer ago than ``max_age`` seconds, or still to come."""
    age = int(clock.time()) - time
    if age < -_TOLERANCE:
        raise Untrusted(
            f"{what} was signed {_period(-age)} from now, so a clock is wrong, here or where it was signed",
            "Compare the clock of this computer with another.",
        )
    if max_age is not None and age > max_age:
        raise Untrusted(
            f"{what} was signed {_period(age)} ago, more than the {_period(max_age)} of `remote.max-age`: it may be "
            "an old state that somebody passes off as the current one",
            "Push it again with its signature, or allow a longer time.",
        )


def _period(seconds: int) -> str:
    for length, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds // length:,} {unit}"
    return f"{seconds} seconds"


# -- ssh-keygen ---------------------------------------------------------------------------------------------


def sign(data: bytes, namespace: str, key: str) -> bytes:
    """Sign data with a key: the file of a private one, or of a public one whose private half the agent has.

    ssh-keygen asks for the passphrase on the terminal. Raises :class:`NotFound` and :class:`HoloError`.
    """
    path = os.path.abspath(os.path.expanduser(key))
    if not os.path.exists(path):
        raise NotFound(f"there is no key at {path}", "Make one with `ssh-keygen -t ed25519`, or name another.")
    if os.path.isdir(path) or os.path.getsize(path) > LARGEST:  # with a large file ssh-keygen is busy for minutes
        raise HoloError(f"{path} is no key of ssh", _WHICH)
    with _Folder() as folder:
        # In a file, and not on standard input: from there ssh-keygen would read the passphrase.
        file = folder.write("data", data)
        try:
            terminal = os.open("/dev/tty", os.O_RDWR)
        except OSError:
            terminal = None
        try:
            done = _run("sign", ["-n", namespace, "-f", path, file], terminal=terminal)
        finally:
            if terminal is not None:
                os.close(terminal)
        if done.returncode != 0:
            is_locked = b"passphrase" in done.stderr
            raise HoloError(f"cannot sign with {path}: {_told(done.stderr)}", _UNLOCK if is_locked else _WHICH)
        with os_errors_as("cannot read the signature that ssh-keygen has made"):
            made, _ = read_file(f"{file}.sig", LARGEST)
    return _armor(_parse(made, namespace, "what was signed"))


def key_of(data: bytes, namespace: str, signature: bytes, what: str) -> Key:
    """The key that signed ``data``, whoever has it. Raises :class:`Untrusted` for a wrong signature."""
    blob = _parse(signature, namespace, what)
    with _Folder() as folder:
        done = _run("check-novalidate", ["-n", namespace, "-s", folder.write("signature", _armor(blob))], data)
    if done.returncode != 0:
        raise _wrong(what)
    return _key_in(done.stdout)


def canonical(signature: bytes, namespace: str, what: str) -> bytes:
    """A signature in the form in which it is kept. Raises :class:`Untrusted` for what is none in that namespace."""
    return _armor(_parse(signature, namespace, what))


def is_signature(signature: bytes, data: bytes, namespace: str) -> bool:
    """Whether it is a signature of the data, whoever made it.

    Where ssh-keygen does not run: whether it looks like one.
    """
    try:
        key_of(data, namespace, signature, "")
    except Untrusted:
        return False
    except ToolMissing:
        return True  # key_of has read it
    return True


def _run(
    action: str, options: Sequence[str], data: bytes = b"", *, terminal: int | None = None
) -> subprocess.CompletedProcess[bytes]:
    import subprocess

    environ = os.environ | {"LC_ALL": "C"}
    command = ["ssh-keygen", "-Y", action, *options]
    try:
        if action == "sign":
            stdin = terminal if terminal is not None else subprocess.DEVNULL
            done = subprocess.run(command, env=environ, stdin=stdin, capture_output=True, check=False)
        else:
            done = subprocess.run(command, env=environ, input=data, capture_output=True, check=False)
    except FileNotFoundError:
        raise ToolMissing(
            "signatures need ssh-keygen, which is not on PATH",
            "Install OpenSSH's client: the package is openssh-client, openssh-clients or openssh.",
        ) from None
    except OSError as error:
        raise ToolMissing(f"cannot run ssh-keygen: {error.strerror}", advice(error)) from error
    if b"No user exists for uid" in done.stderr:
        raise ToolMissing(
            f"ssh-keygen does not run as user {platform.user_id()}, who has no name on this system",
            "Add a line for that user to /etc/passwd: ssh-keygen looks there, also in a container.",
        )
    if done.returncode not in (0, 255):  # of what it could not do, and of what it found wrong
        raise ToolMissing(
            f"ssh-keygen -Y {action} failed with exit code {done.returncode}: {_told(done.stderr)}",
            "Signatures need OpenSSH 8.2 or newer.",
        )
    return done


def _told(stderr: bytes) -> str:
    """What ssh-keygen says, in one line."""
    lines = stderr.decode("utf-8", "replace").splitlines()
    told = " ".join(line.strip() for line in lines if not line.startswith(("@", "Signing ")))
    return " ".join(told.removeprefix("Enter passphrase: ").split()) or "ssh-keygen does not say why"


def _key_in(stdout: bytes) -> Key:
    """The key that ssh-keygen names at the end: ``Good "..." signature ... with ED25519 key SHA256:...``."""
    words = stdout.decode("utf-8", "replace").split()
    return Key(words[-3], words[-1])


def _wrong(what: str) -> Untrusted:
    return Untrusted(f"{what} has a wrong signature: it was made for something else, or changed", _AGAIN)


class _Folder:
    """A private folder for the files that ssh-keygen reads and writes, which is gone after the block."""

    def __enter__(self) -> _Folder:
        import tempfile

        with os_errors_as("cannot make a temporary folder for ssh-keygen"):
            self._folder = tempfile.TemporaryDirectory(prefix="holo-")
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def write(self, name: str, content: bytes) -> str:
        """The path of a file with that content."""
        path = os.path.join(self._folder.name, name)
        with os_errors_as(f"cannot write {path} for ssh-keygen"), open(path, "xb") as file:
            file.write(content)
        return path


# -- the form -----------------------------------------------------------------------------------------------


def _parse(signature: bytes, namespace: str, what: str) -> bytes:
    """The bytes in the armor, which are a signature in that namespace. Raises :class:`Untrusted`.

    However long its lines are. But ssh-keygen skips some fields, and what it does not check could be anything.
    """
    lines = [line.strip() for line in signature.strip().splitlines()] if len(signature) <= LARGEST else []
    if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:
        raise _malformed(what)
    try:
        blob = base64.b64decode(b"".join(lines[1:-1]), validate=True)
        if blob[: len(_MAGIC) + 4] != _MAGIC + _LENGTH.pack(1):
            raise _malformed(what)
        _, named, reserved, _, _ = _strings(blob, len(_MAGIC) + 4)
    except (binascii.Error, struct.error, ValueError):
        raise _malformed(what) from None
    if named != namespace.encode():
        raise Untrusted(
            f"{what} has a signature for {named[:64].decode('ascii', 'backslashreplace')!r}, not for {namespace!r}",
            hints("A signature is good for one purpose.", _AGAIN),
        )
    if reserved:
        raise _malformed(what)
    return blob


def _strings(blob: bytes, position: int) -> list[bytes]:
    found = []
    while position < len(blob):
        (length,) = _LENGTH.unpack_from(blob, position)
        position += _LENGTH.size
        if position + length > len(blob):
            raise ValueError("it breaks off")
        found.append(blob[position : position + length])
        position += length
    return found


def _armor(blob: bytes) -> bytes:
    text = base64.b64encode(blob)
    return b"\n".join([_BEGIN, *(text[start : start + 70] for start in range(0, len(text), 70)), _END, b""])


def _malformed(what: str) -> Untrusted:
    return Untrusted(f"{what} has a signature that is damaged or not of the kind that ssh-keygen makes", _AGAIN)
