"""Signatures by real keys of ssh-keygen: who is believed, for what, and that nothing else is."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holo import signatures
from holo.errors import HoloError, NotFound, Untrusted
from holo.settings import load
from holo.signatures import CATALOG, LARGEST, NAME, AllowedSigners, Trust
from support.signing import Keys, run

DATA = signatures.catalog_statement("0" * 64)
WHAT = "catalog 000000000000 of there"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def ada(keys: Keys) -> Path:
    return keys.make("ada")


@pytest.fixture(scope="module")
def good(ada: Path) -> bytes:
    return signatures.sign(DATA, CATALOG, str(ada))


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An ssh-agent without a key."""
    socket = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it says where it is when it is there
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        yield
        process.terminate()


def verify(allowed: Path, signature: bytes, data: bytes = DATA, namespace: str = CATALOG) -> str:
    return AllowedSigners(str(allowed)).verify(data, namespace, signature, WHAT)


def refused(allowed: Path, signature: bytes, data: bytes = DATA, namespace: str = CATALOG) -> str:
    """The message of the refusal, which is one line with the exit code of damage, and has a hint."""
    with pytest.raises(Untrusted) as caught:
        verify(allowed, signature, data, namespace)
    assert caught.value.exit_code == 3
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith(WHAT)
    return caught.value.message


# -- who is believed --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "called"),
    [("ed25519", (), "ED25519"), ("rsa", ("-b", "2048"), "RSA"), ("ecdsa", (), "ECDSA")],
)
def test_all_kinds_of_keys(keys: Keys, kind: str, options: tuple[str, ...], called: str) -> None:
    key = keys.make(kind, kind, *options)
    signature = signatures.sign(DATA, CATALOG, str(key))
    signer = AllowedSigners(str(keys.allow(("ada@example.org", key)))).signer(DATA, CATALOG, signature, WHAT)
    assert signer.principal == "ada@example.org"
    assert signer.key.type == called
    assert signer.key.fingerprint in run("ssh-keygen", "-l", "-f", f"{key}.pub")
    assert signatures.key_of(DATA, CATALOG, signature, WHAT) == signer.key


def test_ssh_keygen_itself_agrees(keys: Keys, ada: Path, good: bytes, tmp_path: Path) -> None:
    allowed = keys.allow(("ada@example.org", ada))
    (tmp_path / "sig").write_bytes(good)
    command = ["ssh-keygen", "-Y", "verify", "-f", allowed, "-I", "ada@example.org", "-n", CATALOG, "-s"]
    subprocess.run([*command, tmp_path / "sig"], input=DATA, check=True, capture_output=True)


def test_one_of_several_people(keys: Keys, ada: Path, good: bytes) -> None:
    bob = keys.make("bob")
    both = keys.allow(("bob@example.org", bob), ("ada@example.org,ada@home.example", ada))
    assert verify(both, good) == "ada@example.org"
    assert verify(both, signatures.sign(DATA, CATALOG, str(bob))) == "bob@example.org"
    assert verify(keys.allow(("!bob@example.org,*@example.org", ada)), good) == "*@example.org"


def test_someone_else(keys: Keys, ada: Path, good: bytes) -> None:
    allowed = keys.allow(("bob@example.org", keys.make("bob")))
    fingerprint = run("ssh-keygen", "-l", "-f", f"{ada}.pub").split()[1]
    assert refused(allowed, good) == (f"{WHAT} is not signed by anyone in {allowed}, but with ED25519 {fingerprint}")


def test_a_file_with_nobody_and_with_nonsense(keys: Keys, good: bytes, ada: Path, tmp_path: Path) -> None:
    allowed = tmp_path / "signers"
    for text in (b"", b"# nobody\n", b"ada@example.org\n", b"\0\xff" * 1000):
        allowed.write_bytes(text)
        assert "is not signed by anyone in" in refused(allowed, good)
    allowed.write_bytes(b"what is this\n" + keys.allow(("ada@example.org", ada)).read_bytes())
    assert verify(allowed, good) == "ada@example.org"


def test_a_file_that_is_not_there(good: bytes, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing", "pipe", "."):
        with pytest.raises(HoloError, match="cannot read the allowed signers") as caught:
            verify(tmp_path / name, good)
        assert "remote.allowed-signers" in str(caught.value.hint)


def test_keys_have_their_time(keys: Keys, ada: Path, good: bytes) -> None:
    allowed = keys.allow(("ada@example.org", 'valid-after="20200101Z",valid-before="20990101Z"', ada))
    assert verify(allowed, good) == "ada@example.org"
    allowed = keys.allow(("ada@example.org", 'valid-before="20200101Z"', ada))
    message = refused(allowed, good)
    assert f"may not sign it: {allowed}:3: key has expired" in message
    allowed = keys.allow(("ada@example.org", 'valid-after="20990101Z"', ada))
    assert "key is not yet valid" in refused(allowed, good)


def test_keys_have_their_namespaces(keys: Keys, ada: Path, good: bytes) -> None:
    name = signatures.sign(DATA, NAME, str(ada))
    both = keys.allow(("ada@example.org", 'namespaces="git,holo-*"', ada))
    assert verify(both, good) == verify(both, name, namespace=NAME) == "ada@example.org"
    catalogs = keys.allow(("ada@example.org", f'namespaces="{CATALOG}"', ada))
    assert verify(catalogs, good) == "ada@example.org"
    message = refused(catalogs, name, namespace=NAME)
    assert f'key is not permitted for use in signature namespace "{NAME}"' in message


def test_certificates(keys: Keys, ada: Path) -> None:
    authority = keys.make("authority")
    run("ssh-keygen", "-q", "-s", authority, "-I", "ada", "-n", "ada@example.org", "-V", "-1d:+1d", f"{ada}.pub")
    signature = signatures.sign(DATA, CATALOG, f"{ada}-cert.pub")
    assert verify(keys.allow(("*@example.org", "cert-authority", authority)), signature) == "ada@example.org"
    refused(keys.allow(("bob@example.org", "cert-authority", authority)), signature)
    refused(keys.allow(("*@example.org", "cert-authority", keys.make("bob"))), signature)
    message = refused(keys.allow(("*@example.org", 'cert-authority,namespaces="git"', authority)), signature)
    assert "not permitted" in message


# -- signing ----------------------------------------------------------------------------------------------


def test_a_key_in_the_agent(agent: None, tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    key = keys.make("carol")
    run("ssh-add", "-q", key)
    key.unlink()
    signature = signatures.sign(DATA, CATALOG, f"{key}.pub")
    assert verify(keys.allow(("carol@example.org", key)), signature) == "carol@example.org"
    run("ssh-add", "-q", "-D")
    with pytest.raises(HoloError, match=f"cannot sign with {key}.pub: .*"):
        signatures.sign(DATA, CATALOG, f"{key}.pub")


def test_keys_that_cannot_sign(keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match=f"there is no key at {tmp_path}/missing") as missing:
        signatures.sign(DATA, CATALOG, f"{tmp_path}/missing")
    assert "ssh-keygen -t ed25519" in str(missing.value.hint)
    (tmp_path / "junk").write_text("junk")
    (tmp_path / "bundle").write_bytes(bytes(1 << 20))
    for name in ("bundle", ""):
        with pytest.raises(HoloError, match="is no key of ssh"):
            signatures.sign(DATA, CATALOG, f"{tmp_path}/{name}")
    open_to_all = Keys(tmp_path).make("open")
    open_to_all.chmod(0o644)
    for name, says in (("junk", "junk"), ("open", "Permissions 0644 for .* are too open")):
        with pytest.raises(HoloError, match=f"cannot sign with {tmp_path}/{name}: .*{says}") as caught:
            signatures.sign(DATA, CATALOG, f"{tmp_path}/{name}")
        assert "\n" not in caught.value.message


def test_without_a_terminal_a_passphrase_is_for_the_agent(keys: Keys) -> None:
    key = keys.make("locked", passphrase="open sesame")
    code = f"""from holo import signatures
from holo.errors import HoloError
try:
    signatures.sign({DATA!r}, {CATALOG!r}, {str(key)!r})
except HoloError as error:
    print(error.hint)
"""
    command = ["setsid", "--wait", sys.executable, "-c", code]
    assert b"ssh-agent" in subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout


def test_a_passphrase_is_asked_for_on_the_terminal(keys: Keys, tmp_path: Path) -> None:
    """Whatever standard input is."""
    key = keys.make("locked", passphrase="open sesame")
    code = f"from holo import signatures; print(signatures.sign({DATA!r}, {CATALOG!r}, {str(key)!r}).decode())"
    ours, theirs = os.openpty()
    command = ["setsid", "--ctty", "sh", "-c", 'exec "$@" </dev/null', "sh", sys.executable, "-c", code]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SSH_")}
    with subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, env=environ) as process:
        os.close(theirs)
        shown = b""
        while b"Enter passphrase" not in shown:
            shown += os.read(ours, 1024)
        os.write(ours, b"open sesame\n")
        printed, _ = process.communicate(timeout=60)
    with contextlib.suppress(OSError):  # the terminal is gone
        shown += os.read(ours, 1024)
    os.close(ours)
    assert b"sesame" not in shown
    assert verify(keys.allow(("ada@example.org", key)), printed) == "ada@example.org"


def test_nothing_is_left_behind(ada: Path, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    verify(keys.allow(("ada@example.org", ada)), signatures.sign(DATA, CATALOG, str(ada)))
    with contextlib.suppress(HoloError):
        signatures.sign(DATA, CATALOG, f"{ada.parent}/bob.pub")
    assert os.listdir(tmp_path) == []


def test_without_ssh_keygen(
    ada: Path, keys: Keys, good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = keys.allow(("ada@example.org", ada))
    monkeypatch.setenv("PATH", str(tmp_path))
    for attempt in (lambda: signatures.sign(DATA, CATALOG, str(ada)), lambda: verify(allowed, good)):
        with pytest.raises(HoloError, match=r"ssh-keygen, which is not on PATH") as caught:
            attempt()
        assert "openssh-client" in str(caught.value.hint)
    tool = tmp_path / "ssh-keygen"
    tool.write_text("#!/bin/sh\necho unknown option -- Y >&2\nexit 1\n")
    tool.chmod(0o755)
    with pytest.raises(HoloError, match="find-principals failed with exit code 1: unknown option -- Y") as caught:
        verify(allowed, good)
    assert "OpenSSH 8.2" in str(caught.value.hint)
    assert signatures.is_signature(good, DATA, CATALOG)
    assert not signatures.is_signature(good, DATA, NAME)


# -- what is signed ---------------------------------------------------------------------------------------


def test_statements_are_what_they_are() -> None:
    """They never change: signatures that were made would be worth nothing."""
    assert signatures.catalog_statement("ab" * 32) == b"ab" * 32 + b"\n"
    assert signatures.pointer_statement("name", "app", "ab" * 32, 1764400000) == (
        b'{"digest":"' + b"ab" * 32 + b'","kind":"name","name":"app","time":1764400000}\n'
    )
    assert json.loads(signatures.pointer_statement("key", 'é"\n', "ab" * 32, 1))["name"] == 'é"\n'


def test_a_pointer_is_for_its_name_kind_digest_and_time(keys: Keys, ada: Path) -> None:
    now = int(time.time())
    trust = Trust(AllowedSigners(str(keys.allow(("ada@example.org", ada)))), 3600)
    right = ("name", "app", "ab" * 32, now)
    signature = signatures.sign(signatures.pointer_statement(*right), NAME, str(ada))
    assert trust.require_pointer(*right, signature, "there") == "ada@example.org"
    for other in (
        ("key", "app", "ab" * 32, now),
        ("name", "lib", "ab" * 32, now),
        ("name", "app", "cd" * 32, now),
        ("name", "app", "ab" * 32, now + 1),
    ):
        with pytest.raises(Untrusted, match=f"{other[0]} {other[1]} of there has a wrong signature"):
            trust.require_pointer(*other, signature, "there")
    with pytest.raises(Untrusted, match=r"name app of there is not signed, and somebody in .* has to sign it"):
        trust.require_pointer(*right, None, "there")
    with pytest.raises(Untrusted, match="has a signature for 'holo-name', not for 'holo-catalog'"):
        trust.require_catalog("ab" * 32, signature, "there")


def test_a_pointer_has_an_age(keys: Keys, ada: Path) -> None:
    signers = AllowedSigners(str(keys.allow(("ada@example.org", ada))))
    now = int(time.time())

    def accepted(signed: int, max_age: int | None) -> bool:
        signature = signatures.sign(signatures.pointer_statement("name", "app", "ab" * 32, signed), NAME, str(ada))
        try:
            Trust(signers, max_age).require_pointer("name", "app", "ab" * 32, signed, signature, "there")
        except Untrusted:
            return False
        return True

    assert accepted(now - 30 * 86_400 + 60, 30 * 86_400)
    assert not accepted(now - 30 * 86_400 - 60, 30 * 86_400)
    assert accepted(0, None)
    assert accepted(now + 200, 60)
    assert not accepted(now + 400, 60)
    assert not accepted(now + 400, None)


def test_ages_are_told_in_words() -> None:
    now = int(time.time())
    with pytest.raises(Untrusted, match=r"name app was signed 3 days ago, more than the 2 hours of"):
        signatures.check_age(now - 3 * 86_400 - 60, 7200, "name app")
    with pytest.raises(Untrusted, match=r"name app was signed 1.,... days from now, so a clock is wrong"):
        signatures.check_age(now + 10**9, None, "name app")
    signatures.check_age(now, None, "name app")


def test_nothing_is_demanded_unless_somebody_says_so(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    env = {"HOME": str(tmp_path), "HOLO_SETTINGS": str(file)}
    file.write_text("")
    trust = signatures.trust_of(load(environ=env))
    assert trust == Trust(None, None)
    assert trust.require_catalog("ab" * 32, None, "there") is None
    assert trust.require_pointer("name", "app", "ab" * 32, 0, b"junk", "there") is None
    file.write_text(f"remote: {{allowed-signers: {tmp_path}/signers, max-age: 2h}}")
    trust = signatures.trust_of(load(environ=env))
    assert trust == Trust(AllowedSigners(f"{tmp_path}/signers"), 7200)
    with pytest.raises(Untrusted, match=rf"catalog abababababab of there is not signed.* {tmp_path}/signers"):
        trust.require_catalog("ab" * 32, None, "there")


# -- hostile signatures -----------------------------------------------------------------------------------


def blob_of(signature: bytes) -> bytes:
    return base64.b64decode(b"".join(signature.splitlines()[1:-1]))


def armored(blob: bytes) -> bytes:
    return b"-----BEGIN SSH SIGNATURE-----\n" + base64.b64encode(blob) + b"\n-----END SSH SIGNATURE-----\n"


def test_other_data(keys: Keys, ada: Path, good: bytes) -> None:
    allowed = keys.allow(("ada@example.org", ada))
    assert "has a wrong signature" in refused(allowed, good, DATA + b"\n")
    with pytest.raises(Untrusted, match="has a wrong signature"):
        signatures.key_of(DATA[1:], CATALOG, good, WHAT)


def test_a_signature_for_another_purpose(keys: Keys, ada: Path) -> None:
    signature = signatures.sign(DATA, "git", str(ada))
    message = refused(keys.allow(("ada@example.org", ada)), signature)
    assert message == f"{WHAT} has a signature for 'git', not for 'holo-catalog'"


def test_lines_may_have_any_length(keys: Keys, ada: Path, good: bytes) -> None:
    allowed = keys.allow(("ada@example.org", ada))
    for other in (armored(blob_of(good)), good.replace(b"\n", b"\r\n"), b"\n " + good + b"\n\n"):
        assert verify(allowed, other) == "ada@example.org"
        assert signatures.canonical(other, CATALOG, WHAT) == good


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        b"\n",
        b"\0" * 1000,
        bytes(range(256)),
        b"-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----\n",
        b"-----BEGIN SSH SIGNATURE-----\n",
        armored(b""),
        armored(b"SSHSIG"),
        armored(b"SSHSIG\0\0\0\1"),
        armored(b"SSHSIG\0\0\0\1" + b"\xff\xff\xff\xff" * 5),
        armored(b"SSHSIG\0\0\0\1" + b"\0\0\0\0" * 5000),
        b"-----BEGIN SSH SIGNATURE-----\n" + b"A" * (LARGEST * 200) + b"\n-----END SSH SIGNATURE-----\n",
    ],
    ids=range(12),
)
def test_what_is_no_signature(keys: Keys, ada: Path, signature: bytes) -> None:
    message = refused(keys.allow(("ada@example.org", ada)), signature)
    assert "has a signature that is damaged or not of the kind that ssh-keygen makes" in message


@given(position=st.integers(min_value=0), flip=st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_a_changed_byte_never_verifies(keys: Keys, ada: Path, good: bytes, position: int, flip: int) -> None:
    blob = bytearray(blob_of(good))
    blob[position % len(blob)] ^= flip
    refused(keys.allow(("ada@example.org", ada), name="damage"), armored(bytes(blob)))


@given(start=st.integers(min_value=0), length=st.integers(0, 40), other=st.binary(max_size=40))
@settings(max_examples=60, deadline=None)
def test_changed_stretches_never_verify(
    keys: Keys, ada: Path, good: bytes, start: int, length: int, other: bytes
) -> None:
    """Cut out, put in, replaced, before or after the armor: it is the same signature, or none."""
    at = start % (len(good) + 1)
    changed = good[:at] + other + good[at + length :]
    with contextlib.suppress(Untrusted):
        verify(keys.allow(("ada@example.org", ada), name="damage"), changed)
        assert signatures.canonical(changed, CATALOG, WHAT) == good


@given(st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_random_bytes_never_verify(keys: Keys, ada: Path, data: bytes) -> None:
    allowed = keys.allow(("ada@example.org", ada), name="damage")
    refused(allowed, data)
    refused(allowed, armored(b"SSHSIG\0\0\0\1" + data))
