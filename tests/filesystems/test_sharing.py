"""Two users with one library, set up as docs/sharing.md says: neither changes what the other restores."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from holo import digest as digests
from holo.catalog import Catalog
from holo.hololib.blobs import SEALED_MODE, SEALED_MTIME_NS
from holo.hololib.layout import FOLDERS
from support import records
from support.cli import Result
from support.filesystems import Filesystem
from support.forks import Forks, User
from support.signing import Keys

GROUP = 1500
ADA, BOB = User(1001, (GROUP,)), User(1002, (GROUP,))
STRANGER = User(1003)
STRATEGIES = ("smart", "reflink", "hardlink", "copy")

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two other users"),
    pytest.mark.parametrize("filesystem", ["btrfs", "ext4"], indirect=True),
]


@dataclass
class Shared:
    """The library, and a tree of each user."""

    root: Path
    forks: Forks
    settings: Path

    @property
    def home(self) -> Path:
        return self.root / "holo"

    def folder(self, user: User) -> Path:
        return self.root / str(user.uid)

    def tree(self, user: User) -> Path:
        return self.folder(user) / "tree"

    def __call__(self, user: User, *arguments: Any, code: int | None = 0) -> Result:
        return self.forks(*arguments, env=self.environment(user), user=user, code=code)

    def environment(self, user: User) -> dict[str, str]:
        return {
            "HOLO_HOME": str(self.home),
            "HOLO_SETTINGS": str(self.settings),
            "HOME": str(self.folder(user)),
            "PATH": os.environ["PATH"],
        }

    def blob(self, content: bytes) -> Path:
        digest = digests.of(content)
        return self.home / "hololib/library" / digest[:2] / digest

    def record(self, user: User, space: str) -> Path:
        return Path(records.read(self.home / f"holotree/.spaces/{space}.json")["path"])

    def is_right(self, user: User, space: str, source: Path) -> None:
        """The space holds what the source does, and all of it is its user's own."""
        path = self.record(user, space)
        names = sorted(str(entry.relative_to(source)) for entry in source.rglob("*"))
        assert sorted(str(entry.relative_to(path)) for entry in path.rglob("*")) == names
        for name in names:
            status = os.lstat(path / name)
            assert status.st_uid == user.uid
            assert not status.st_mode & 0o6000
            if stat.S_ISREG(status.st_mode):
                content = (path / name).read_bytes().replace(os.fsencode(path), os.fsencode(source))
                assert content == (source / name).read_bytes()


COMMON = {"common/one": b"1" * 9000, "common/two": b"two\n", "common/three": b"3" * 100_000}


@pytest.fixture
def shared(filesystem: Filesystem, forks: Forks, tmp_path: Path) -> Shared:
    root = filesystem.root
    for folder in root.parents:
        folder.chmod(folder.stat().st_mode | 0o011)
    settings = root / "settings.yaml"
    settings.write_text("library: {compression: raw}\n")
    shared = Shared(root, forks, settings)
    document = (Path(__file__).parents[2] / "docs/sharing.md").read_text()
    found = re.search(r"```sh\n(.*?)```", document, re.DOTALL)
    assert found is not None
    recipe = found[1].replace("/srv/holo", str(shared.home)).replace("builders", str(GROUP))
    subprocess.run(["sh", "-euc", recipe], check=True)
    for user in (ADA, BOB, STRANGER):
        tree = shared.tree(user)
        contents = {**COMMON, "own": b"%d's\n" % user.uid, "bin/run": f"#!{tree}/bin/python\n".encode()}
        for name, content in contents.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(content)
        (tree / "bin/run").chmod(0o755)
        subprocess.run(["chown", "-R", f"{user.uid}:{user.uid}", shared.folder(user)], check=True)
        shared.folder(user).chmod(0o755)
    return shared


def name(user: User) -> str:
    return f"of-{user.uid}"


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_both_record_and_restore_both(shared: Shared, umask: int) -> None:
    ada, bob = User(ADA.uid, ADA.groups, umask), User(BOB.uid, BOB.groups, umask)
    for user in (ada, bob):
        shared(user, "record", shared.tree(user), "--name", name(user))
    first, second = (records.read(shared.home / f"hololib/names/{name(user)}.json")["digest"] for user in (ada, bob))
    assert first != second
    for strategy in STRATEGIES if umask == 0o022 else ("smart", "hardlink"):
        for user in (ada, bob):
            for owner in (bob, ada):
                space = f"{strategy}-{user.uid}-{owner.uid}"
                made = shared(user, "init", "--space", space, name(owner), "--strategy", strategy, "--json").json()
                assert made["files"]["hardlinked"] == (4 if strategy == "hardlink" else 0)
                shared.is_right(user, space, shared.tree(owner))
                (shared.record(user, space) / "own").unlink()
                again = shared(user, "restore", "--space", space, "--strategy", strategy, "--json").json()
                assert again["files"]["unchanged"] == (0 if again["strategy"]["used"] == "snapshot" else 4)
                shared.is_right(user, space, shared.tree(owner))
    for user in (ada, bob):
        spaces = shared(user, "list", "--json").json()["spaces"]
        assert spaces
        assert all(item["name"].split("-")[1] == str(user.uid) for item in spaces)
        for item in spaces:
            shared(user, "delete", "--space", item["name"])
    assert len(shared(bob, "catalogs", "--json").json()["catalogs"]) == 2


def test_throw_away_environments_of_both(shared: Shared) -> None:
    """Each over layers of their own, of whichever catalog; the folders' group, which has no name inside, is on none."""
    for user in (ADA, BOB):
        shared(user, "record", shared.tree(user), "--name", name(user))
    for user in (ADA, BOB):
        for owner in (ADA, BOB):
            script = "cd $HOLO_SPACE_PATH && cat own && rm -r bin common && ls && stat -c '%u %g' . own"
            done = shared(
                user,
                *("run", "--ephemeral", "--space", name(user), "--catalog", name(owner), "--", "sh", "-c", script),
            )
            assert done.stdout.split("\n") == [f"{owner.uid}'s", "own", *[f"{user.uid} {user.uid}"] * 2, ""]
            assert done.stderr == ""
        own = shared.home / f"holotree/.ephemeral-{user.uid}"
        assert stat.S_IMODE(own.stat().st_mode) == 0o700
        assert list((own / "runs").iterdir()) == []


def test_space_is_writable_only_for_its_user(shared: Shared) -> None:
    """Where the umask lets one's own group write: a setgid holotree must not make the others that group."""
    ada = User(ADA.uid, ADA.groups, 0o002)
    tree = shared.tree(ada)
    for path in (tree, *tree.rglob("*")):
        path.chmod(0o775 if path.is_dir() else 0o664)
    shared(ada, "record", tree, "--name", "app")
    for strategy in STRATEGIES:
        for space in (f"{strategy}-first", f"{strategy}-second"):
            shared(ada, "init", "--space", space, "app", "--strategy", strategy)
            path = shared.record(ada, space)
            for inside in (path, *path.rglob("*")):
                status = inside.stat()  # a link form, which nobody writes to, may be of any group
                assert status.st_gid == ADA.uid or not status.st_mode & 0o020, inside
            for target in (path / "own", path / "common" / "bobs"):
                assert as_user(BOB, partial(target.write_bytes, WRONG)) != "done"


def test_name_belongs_to_the_user_who_took_it_first(shared: Shared) -> None:
    shared(ADA, "record", shared.tree(ADA), "--name", "app")
    shared(ADA, "init", "--space", "user", "app")
    assert "names/app.json" in shared(BOB, "record", shared.tree(BOB), "--name", "app", code=1).stderr
    for command in (
        ["init", "--space", "user", "app"],
        ["init", "--space", "user", "app", "--force"],
        ["restore"],
        ["restore", "--catalog", "app", "--force"],
        ["delete", "--space", "user"],
        ["run", "--space", "user", "--", "true"],
        ["variables", "--space", "user"],
    ):
        assert "another user" in shared(BOB, *command, code=1).stderr
    assert shared(BOB, "list").stdout.count("\n") == 1
    assert "'app' is another user's" in shared(BOB, "catalogs", "--remove", "app", code=1).stderr
    shared.is_right(ADA, "user", shared.tree(ADA))
    shared(ADA, "restore")
    shared(BOB, "init", "bobs", "app")
    assert "cannot be restored any more: bobs, user\n" in shared(ADA, "catalogs", "app", "--remove").stderr


def test_a_name_of_ones_own_for_anothers_catalog_goes_alone(shared: Shared) -> None:
    digest = shared(ADA, "record", shared.tree(ADA), "--name", "app", "--json").json()["digest"]
    bundle = shared.folder(ADA) / "app.holo"
    shared(ADA, "export", "app", "-o", bundle)
    shared(BOB, "import", bundle, "--name", "bobs")
    shared(ADA, "catalogs", "--remove", "app")
    shared(BOB, "catalogs", "--remove", "bobs")
    (left,) = shared(BOB, "catalogs", "--json").json()["catalogs"]
    assert (left["name"], left["digest"]) == (None, digest)
    assert "is another user's" in shared(BOB, "catalogs", "--remove", digest, code=1).stderr
    shared(ADA, "catalogs", "--remove", digest)
    assert shared(BOB, "catalogs", "--json").json()["catalogs"] == []


def test_signature_belongs_to_the_user_who_signed_first(shared: Shared) -> None:
    """Others sign what they export, and leave that in the library alone."""
    first, second = User(1, (GROUP,)), User(2, (GROUP,))  # ssh-keygen wants users who have names
    shared(first, "record", shared.tree(ADA), "--name", "app")
    signers = shared.root / "signers"
    for user in (first, second):
        shared.folder(user).mkdir()
        key = Keys(shared.folder(user)).make("key")
        for path in (key, key.parent):
            os.chown(path, user.uid, user.uid)
        with signers.open("a") as file:
            file.write(f"{user.uid}@example.org {Path(f'{key}.pub').read_text()}")
        bundle = shared.folder(user) / "app.holo"
        shared(user, "export", "app", "--sign", key, "-o", bundle)
        report = shared(user, "verify", bundle, "--allowed-signers", signers, "--json").json()
        assert report["catalogs"][0]["principal"] == f"{user.uid}@example.org"
        kept = shared(user, "verify", "app", "--allowed-signers", signers, "--json").json()
        assert kept["catalogs"][0]["principal"] == f"{first.uid}@example.org"
        assert shared(user, "check", "--json").json()["problems"] == []
    names = sorted(os.listdir(shared.home / "hololib/catalog"))
    assert [name[64:] for name in names] == [".json", ".sig"]


def test_recipe_makes_every_folder(shared: Shared) -> None:
    """One that a user makes belongs to that user, and nobody else can write to it."""
    assert {*os.listdir(shared.home / "hololib")} == {*FOLDERS}


def test_push_goes_on_past_the_note_of_another_user(shared: Shared) -> None:
    """A push that is killed leaves a note. In the sticky folder nobody else can write or remove it."""
    digest = shared(ADA, "record", shared.tree(ADA), "--name", "app", "--json").json()["digest"]
    remotes = {user: shared.folder(user) / "remote" for user in (ADA, BOB)}
    for user, remote in remotes.items():
        remote.mkdir()
        os.chown(remote, user.uid, user.uid)
    shared(ADA, "push", "app", remotes[ADA])
    incoming = shared.home / "hololib/incoming"
    assert os.listdir(incoming) == []
    note = incoming / f"push-{digest}"
    note.touch(0o600)
    os.chown(note, ADA.uid, GROUP)
    shared(BOB, "push", "app", remotes[BOB])
    assert [item["name"] for item in shared(BOB, "remote", "list", remotes[BOB], "--json").json()["names"]] == ["app"]
    assert note.exists()
    # Nor is a file made where somebody else's symlink of that name leads.
    note.unlink()
    target = shared.folder(BOB) / "made"
    note.symlink_to(target)
    os.lchown(note, ADA.uid, GROUP)
    (remotes[BOB] / "catalogs" / digest).unlink()
    shared(BOB, "push", "app", remotes[BOB])
    assert not target.exists()


def test_pull_goes_on_past_the_pack_of_another_user(shared: Shared) -> None:
    """A pull that is killed leaves what it has of a pack. In the sticky folder nobody else can read or remove it."""
    (shared.tree(ADA) / "large").write_bytes(os.urandom(9000))  # so that the pack comes whole
    shared(ADA, "record", shared.tree(ADA), "--name", "app")
    remote = shared.folder(ADA) / "remote"
    remote.mkdir()
    os.chown(remote, ADA.uid, ADA.uid)
    shared(ADA, "push", "app", remote)
    shared(ADA, "catalogs", "app", "--remove")
    shared(ADA, "gc")
    (pack,) = os.listdir(remote / "packs")
    left = shared.home / "hololib/incoming" / pack
    left.touch(0o600)
    os.chown(left, ADA.uid, GROUP)
    shared(BOB, "pull", "app", remote)
    assert left.exists()
    shared(BOB, "init", "bobs", "app")


def test_user_without_a_name_cannot_use_signatures(shared: Shared) -> None:
    """As in many containers. Such a user can still take in what is signed, as long as nobody demands that it is."""
    shared(BOB, "record", shared.tree(BOB), "--name", "app")
    key = Keys(shared.root).make("key")
    bundle = shared.root / "app.holo"
    done = shared(BOB, "export", "app", "--sign", key, "-o", shared.folder(BOB) / "app.holo", code=1)
    assert "ssh-keygen does not run as user 1002, who has no name on this system" in done.stderr
    shared(User(0), "export", "app", "--sign", key, "-o", bundle)
    shared(BOB, "catalogs", "--remove", "app")
    shared(BOB, "import", bundle)
    assert shared(BOB, "check", "--json").json()["problems"] == []
    shared.settings.write_text(f"remote: {{allowed-signers: {key}.pub}}")
    done = shared(BOB, "import", bundle, code=1)
    assert "who has no name on this system" in done.stderr
    assert "/etc/passwd" in done.stderr


def test_each_user_checks_and_collects_their_own_files(shared: Shared) -> None:
    root = User(0)
    spaces = shared.home / "holotree/.spaces"
    for user in (ADA, BOB):
        secret = shared.tree(user) / "secret"
        secret.write_bytes(b"%d's secret\n" % user.uid)
        secret.chmod(0o600)
        os.chown(secret, user.uid, user.uid)
        shared(user, "record", shared.tree(user), "--name", name(user))
        for strategy in ("smart", "hardlink"):
            shared(user, "init", "--space", f"{strategy}-{user.uid}", name(user), "--strategy", strategy)
    there = sorted(os.listdir(spaces))
    for arguments in ((ADA, "check"), (BOB, "check"), (root, "check"), (root, "check", "--repair")):
        assert "all is well" in shared(*arguments).stdout
    assert "another user's" in shared(BOB, "check", "--space", f"smart-{ADA.uid}", code=1).stderr
    assert sorted(os.listdir(spaces)) == there
    for user in (ADA, BOB, root):
        report = shared(user, "gc", "--keep-last", "0", "--json").json()
        assert report["catalogs"] == []
        assert [len(use["spaces"]) for use in report["kept"]] == [2, 2]

    for strategy in ("smart", "hardlink"):
        shared(BOB, "delete", "--space", f"{strategy}-{BOB.uid}")
    report = shared(ADA, "gc", "--keep-last", "0", "--json").json()
    assert report["catalogs"] == []
    assert [use["spaces"] for use in report["kept"] if use["names"] == [name(BOB)]] == [[]]
    shared(BOB, "catalogs", "--remove", name(BOB))
    for number in range(20):
        (shared.tree(ADA) / f"more-{number}").write_bytes(b"%d" % number)
    shared(ADA, "record", shared.tree(ADA), "--name", "more")
    shared(ADA, "catalogs", "--remove", "more")
    would = shared(ADA, "gc", "--dry-run", "--json").json()["removed"]
    gc = shared(ADA, "gc", "--json")
    assert gc.json()["removed"] == would
    assert would["blobs"] == 20
    assert "of other users" in shared(ADA, "gc").stderr
    assert shared(BOB, "gc", "--json").json()["removed"]["blobs"] == 3
    assert not any(shared(root, "gc", "--json").json()["removed"].values())
    for strategy in ("smart", "hardlink"):
        shared(ADA, "restore", "--space", f"{strategy}-{ADA.uid}", "--verify")


@pytest.mark.parametrize("damage", [b"", b"{}"])
def test_no_catalog_goes_when_a_users_space_cannot_be_read(shared: Shared, damage: bytes) -> None:
    shared(ADA, "record", shared.tree(ADA), "--name", "app")
    shared(BOB, "init", "--space", "bobs", "app")
    record = shared.home / "holotree/.spaces/bobs.json"
    record.with_suffix(".mark").write_bytes(b"")
    record.write_bytes(damage)
    assert "bobs.json" in shared(ADA, "gc", "--keep-last", "0", code=1).stderr
    assert "app" in shared(ADA, "catalogs").stdout
    shared(ADA, "gc")


def test_use_by_any_user_counts(shared: Shared) -> None:
    shared(ADA, "record", shared.tree(ADA), "--name", "app")
    (mark,) = (shared.home / "hololib/used").iterdir()
    os.utime(mark, (0, 0))
    shared(BOB, "init", "--space", "bobs", "app")
    shared(BOB, "delete", "--space", "bobs")
    assert shared(User(0), "gc", "--keep-days", "1", "--json").json()["catalogs"] == []
    assert shared(User(0), "gc", "--keep-days", "0", "--json").json()["kept"] == []
    assert os.listdir(mark.parent) == []


def test_each_removes_their_own_torn_blobs(shared: Shared) -> None:
    """Ada's are behind those of Bob, which she cannot remove, and root's are believed by their seal."""
    root = User(0)
    shutil.copytree(shared.tree(ADA), shared.folder(root) / "tree")
    own: dict[int, list[Path]] = {}
    for user in (ADA, BOB, root):
        own[user.uid] = []
        for number in range(20):
            content = b"%d of %d\n" % (number, user.uid)
            (shared.tree(user) / f"file-{number}").write_bytes(content)
            own[user.uid].append(shared.blob(content))
        shared(user, "record", shared.tree(user), "--name", name(user))
        shared(user, "catalogs", "--remove", name(user))
    for path in itertools.chain.from_iterable(own.values()):
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_mtime_ns, status.st_mtime_ns))
    (shared.home / "hololib/unsettled/another-boot").touch()

    shared(ADA, "record", shared.tree(ADA), "--name", name(ADA))
    assert {path.read_bytes()[-5:] for path in own[ADA.uid]} == {b"1001\n"}
    assert {path.read_bytes()[-5:] for path in own[BOB.uid]} == {bytes(5)}
    (shared.tree(ADA) / "roots").write_bytes(b"0 of 0\n")
    assert own[0][0].name in shared(ADA, "record", shared.tree(ADA), "--name", "roots", code=3).stderr
    shared(BOB, "record", shared.tree(BOB), "--name", name(BOB))
    shared(root, "gc")
    left = {path.stat().st_uid for path in (shared.home / "hololib/unsettled").iterdir()}
    assert left <= {ADA.uid}, "but for what her failed record noted, for her"
    shared(ADA, "record", shared.tree(ADA), "--name", "roots")
    for user, catalog in ((ADA, "roots"), (BOB, name(BOB))):
        shared(user, "init", "--space", name(user), catalog)
        shared.is_right(user, name(user), shared.tree(user))


def test_an_uninstall_takes_what_is_ones_own_and_tells_what_is_there(shared: Shared) -> None:
    """Whether others' spaces are in the holotree or elsewhere."""
    shared(ADA, "record", shared.tree(ADA), "--name", "app")
    shared(BOB, "init", "mine", "app")
    shared(ADA, "init", "here", "app")
    shared(ADA, "init", "there", "app", "--to", shared.folder(ADA) / "space")
    planned = shared(BOB, "uninstall", "--dry-run", "--json").json()
    assert [space["space"] for space in planned["spaces"]] == ["mine"]
    left = [item["path"] for item in planned["left"]]
    assert str(shared.record(ADA, "here")) in left
    assert [path for path in left if not os.path.lexists(path)] == []
    assert shared(BOB, "uninstall", "--yes", "--json").json() == planned | {"dry_run": False}
    for space in ("here", "there"):
        shared.is_right(ADA, space, shared.tree(ADA))


def test_user_outside_the_group_gets_a_clear_error(shared: Shared) -> None:
    shared(ADA, "record", shared.tree(ADA), "--name", "app")
    assert "Permission denied" in shared(STRANGER, "init", "--space", "mine", "app", code=1).stderr
    assert "Permission denied" in shared(STRANGER, "record", shared.tree(STRANGER), code=1).stderr
    assert "app" in shared(STRANGER, "catalogs").stdout


def test_two_record_the_same_at_the_same_time(shared: Shared, torture: bool) -> None:
    """Nobody replaces what the other is writing, nor fails because of it."""
    both = Forks()
    try:
        for number in range(20 if torture else 2):
            for user in (ADA, BOB):
                for index in range(200):
                    (shared.tree(user) / f"new-{number}-{index}").write_bytes(b"%d %d\n" % (number, index) * 300)
            failures: list[BaseException] = []

            def record(user: User, forks: Forks, failures: list[BaseException] = failures) -> None:
                try:
                    forks("record", shared.tree(user), "--name", name(user), env=shared.environment(user), user=user)
                except BaseException as error:  # noqa: BLE001 - the other thread is to see it
                    failures.append(error)

            threads = [threading.Thread(target=record, args=pair) for pair in ((ADA, shared.forks), (BOB, both))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert failures == []
    finally:
        both.close()
    for user in (ADA, BOB):
        shared(user, "init", "--space", name(user), name(user), "--verify")
        shared.is_right(user, name(user), shared.tree(user))


def test_doctor_tells_a_library_that_others_can_change(shared: Shared) -> None:
    assert "sharing.md" not in shared(ADA, "doctor", shared.folder(ADA)).stdout
    for name in ("library", "names", "links/a7"):
        folder = shared.home / "hololib" / name
        folder.chmod(0o2775)
        said = shared(ADA, "doctor", shared.folder(ADA)).stdout
        assert "sharing.md" in said
        assert str(folder) in said.replace("\n", "")
        folder.chmod(0o3775)


def test_doctor_tells_what_each_user_can_mount_there(shared: Shared) -> None:
    """A folder in it has the group of all, which would have no name in a namespace of one user's."""
    shared(ADA, "record", shared.tree(ADA), "--name", "app")
    shared(BOB, "init", "--space", "view", "app", "--strategy", "overlay")
    can = shared(BOB, "doctor", "--json").json()["capabilities"]
    assert can["view"]["available"]
    assert can["stubs"]["reason"] == "others share the library"
    assert shared(BOB, "run", "view", "--", "true").code == 0
    assert "throw-away" not in shared(BOB, "run", "--ephemeral", "--space", "view", "--", "true").stderr
    shared(BOB, "delete", "view")


# -- attacks ----------------------------------------------------------------------------------------------


def as_user(user: User, action: Callable[[], object]) -> str:
    """Do it in a process of that user's; returns the name of the error, or "done"."""
    receive, send = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups(list(user.groups))
            os.setresgid(user.uid, user.uid, user.uid)
            os.setresuid(user.uid, user.uid, user.uid)
            action()
            os.write(send, b"done")
        except BaseException as error:  # noqa: BLE001 - the parent is to see it
            os.write(send, repr(error).encode())
        finally:
            os._exit(0)
    os.close(send)
    with os.fdopen(receive) as said:
        outcome = said.read()
    os.waitpid(child, 0)
    return outcome


def test_files_of_another_user_cannot_be_changed(shared: Shared, faults: Callable[[int, str, int], None]) -> None:
    shared(ADA, "record", shared.tree(ADA), "--name", "app")
    for strategy in ("smart", "hardlink"):
        shared(ADA, "init", "--space", strategy, "app", "--strategy", strategy)
    library = shared.home / "hololib"
    theirs = [path for path in shared.home.rglob("*") if path.lstat().st_uid == ADA.uid and not path.is_symlink()]
    kinds = {path.relative_to(shared.home).parts[:2] for path in theirs}
    assert {("hololib", kind) for kind in ("library", "catalog", "names", "links")} <= kinds
    bait = shared.folder(BOB) / "bait"
    bait.mkdir()
    os.chown(bait, BOB.uid, BOB.uid)
    attempts: list[tuple[str, Callable[[], object]]] = []
    for path in theirs:
        folder = path.is_dir()
        attempts += [
            (f"chmod {path}", lambda path=path: path.chmod(0o777)),
            (f"touch {path}", lambda path=path: os.utime(path, ns=(0, 0))),
            (f"own {path}", lambda path=path: os.chown(path, BOB.uid, BOB.uid)),
            (f"move {path}", lambda path=path: path.rename(bait / "moved")),
            (f"rename {path}", lambda path=path: path.rename(path.with_name("renamed"))),
            (f"label {path}", lambda path=path: os.setxattr(path, "user.x", b"")),
        ]
        if folder:
            attempts += [
                (f"make in {path}", lambda path=path: (path / "made").touch()),
                (f"remove {path}", lambda path=path: path.rmdir()),
            ]
        else:
            attempts += [
                (f"write {path}", lambda path=path: os.close(os.open(path, os.O_WRONLY))),
                (f"unlink {path}", lambda path=path: path.unlink()),
                (f"truncate {path}", lambda path=path: os.truncate(path, 0)),
                (f"replace {path}", lambda path=path: replace(path, bait)),
            ]
            if Path("/proc/sys/fs/protected_hardlinks").read_text().strip() == "1":
                attempts.append((f"link {path}", lambda path=path: os.link(path, bait / "linked")))
    for folder in [library, *library.iterdir(), *(library / "library").iterdir(), *(library / "links").iterdir()]:
        if folder.is_dir() and folder.lstat().st_uid == 0:
            attempts += [
                (f"move folder {folder}", lambda folder=folder: folder.rename(bait / "moved")),
                (f"chmod folder {folder}", lambda folder=folder: folder.chmod(0o2777)),
            ]
    faults(6, "changes to what is another user's", len(attempts))
    assert as_user(BOB, lambda: refused(attempts)) == "done"
    for strategy in STRATEGIES:
        shared(ADA, "init", "--space", f"again-{strategy}", "app", "--strategy", strategy)
        shared.is_right(ADA, f"again-{strategy}", shared.tree(ADA))


def refused(attempts: list[tuple[str, Callable[[], object]]]) -> None:
    for what, attempt in attempts:
        try:
            attempt()
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
                continue
        raise AssertionError(what)


def replace(path: Path, bait: Path) -> None:
    (bait / "mine").write_bytes(b"wrong\n")
    os.replace(bait / "mine", path)


def plant(path: Path, content: bytes, mode: int = SEALED_MODE, mtime: int = SEALED_MTIME_NS) -> Callable[[], None]:
    """Put a file there as its own user would: the right mode and time, another content."""

    def act() -> None:
        if path.exists():
            path.chmod(0o644)
        path.write_bytes(content)
        os.utime(path, ns=(mtime, mtime))
        path.chmod(mode)

    return act


WRONG = b"2wo\n"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_wrong_blob_of_another_is_not_restored(
    shared: Shared, strategy: str, faults: Callable[[int, str, int], None]
) -> None:
    """Bob records first, so Ada's catalog uses his blobs; then he changes one, and its seal is right."""
    faults(6, "another user's wrong files", 3)
    shared(BOB, "record", shared.tree(BOB), "--name", "bobs")
    shared(ADA, "record", shared.tree(ADA), "--name", "app")
    shared(ADA, "init", "--space", "before", "app", "--strategy", strategy)
    shared.is_right(ADA, "before", shared.tree(ADA))
    blob = shared.blob(COMMON["common/two"])
    assert blob.stat().st_uid == BOB.uid
    assert as_user(BOB, plant(blob, WRONG)) == "done"
    shared.is_right(ADA, "before", shared.tree(ADA))
    golden = list((shared.home / "hololib/golden").glob("[!.]*"))
    made = shared(ADA, "init", "--space", "after", "app", "--strategy", strategy, code=None)
    if made.code == 0:  # from Ada's own golden tree or link forms, made before
        assert golden or strategy == "hardlink"
        shared.is_right(ADA, "after", shared.tree(ADA))
    else:
        assert made.code == 3
        assert blob.name in made.stderr
    assert as_user(BOB, blob.unlink) == "done"
    made = shared(ADA, "init", "--space", "without", "app", "--strategy", "copy", code=3)
    assert blob.name in made.stderr
    # Recorded again it is Ada's own.
    shared(ADA, "record", shared.tree(ADA), "--name", "app")
    shared(ADA, "init", "--space", "last", "app", "--strategy", strategy)
    shared.is_right(ADA, "last", shared.tree(ADA))
    assert blob.stat().st_uid == ADA.uid


def test_check_continues_past_files_of_another_user(shared: Shared, faults: Callable[[int, str, int], None]) -> None:
    """Bob's blobs are wrong in every way; Ada hears of each, repairs her own, and root repairs the rest."""
    faults(6, "another user's wrong files", 6)
    shared(BOB, "record", shared.tree(BOB), "--name", "bobs")
    shared(ADA, "record", shared.tree(ADA), "--name", "app")
    shared(ADA, "init", "--space", "mine", "app", "--strategy", "copy")
    one, two, three = (shared.blob(content) for content in COMMON.values())
    own = shared.blob(b"1001's\n")
    (catalog,) = (path for path in (shared.home / "hololib/catalog").glob("*.json") if path.stat().st_uid == BOB.uid)
    name = shared.home / "hololib/names/bobs.json"
    assert as_user(BOB, lambda: one.chmod(0o400)) == "done"
    assert as_user(BOB, plant(two, WRONG)) == "done"
    assert as_user(BOB, lambda: three.chmod(0o644)) == "done"
    assert as_user(BOB, lambda: catalog.chmod(0o400)) == "done"
    assert as_user(BOB, lambda: name.chmod(0o400)) == "done"
    assert as_user(ADA, plant(own, b"9001's\n")) == "done"

    found = {item["path"]: item for item in shared(ADA, "check", "--json", code=3).json()["problems"]}
    assert found.keys() == {str(path) for path in (one, two, three, catalog, name, own)}
    for path in (one, catalog, name):
        assert found[str(path)]["what"] == "another user's, which only they can read"
    assert found[str(one)]["catalogs"] == ["app"]
    assert [item["name"] for item in shared(ADA, "catalogs", "--json").json()["catalogs"]] == ["app"]
    left = shared(ADA, "check", "--repair", "--json", code=3).json()["problems"]
    assert {item["path"] for item in left if item["repaired"] is not None} == {str(own)}
    assert sum("who can repair it" in item["what"] for item in left) == 2
    assert stat.S_IMODE(one.stat().st_mode) == 0o400
    assert own.read_bytes() == b"1001's\n"

    shared(User(0), "check", "--repair", "--from", shared.tree(ADA))
    assert as_user(BOB, lambda: catalog.chmod(0o644)) == "done"
    assert as_user(BOB, lambda: name.chmod(0o644)) == "done"
    shared(ADA, "check")
    shared.is_right(ADA, "mine", shared.tree(ADA))


@pytest.mark.parametrize("ending", ["", ".zst"])
@pytest.mark.parametrize("content", [WRONG, b"", b"a much longer one\n" * 100])
def test_wrong_blob_in_the_way_is_an_error(
    shared: Shared, ending: str, content: bytes, faults: Callable[[int, str, int], None]
) -> None:
    faults(6, "another user's wrong files", 1)
    blob = shared.blob(COMMON["common/two"])
    blob = blob.with_name(blob.name + ending)
    assert as_user(BOB, plant(blob, content)) == "done"
    if ending:
        shared(ADA, "record", shared.tree(ADA), "--name", "app")
        shared(ADA, "init", "--space", "mine", "app")
        shared.is_right(ADA, "mine", shared.tree(ADA))
        return
    made = shared(ADA, "record", shared.tree(ADA), "--name", "app", code=3)
    assert "another user's" in made.stderr
    assert shared(ADA, "catalogs", "--json").json()["catalogs"] == []
    assert as_user(BOB, blob.unlink) == "done"
    shared(ADA, "record", shared.tree(ADA), "--name", "app")
    shared(ADA, "init", "--space", "mine", "app")
    shared.is_right(ADA, "mine", shared.tree(ADA))


def test_derived_files_of_another_are_not_used(shared: Shared, faults: Callable[[int, str, int], None]) -> None:
    faults(6, "another user's wrong files", 3)
    shared(ADA, "record", shared.tree(ADA), "--name", "app")
    (path,) = (shared.home / "hololib/catalog").glob("*.json")
    library = shared.home / "hololib"
    status = (shared.tree(ADA) / "common/two").stat()
    digest = digests.of(COMMON["common/two"])
    form = library / "links" / digest[:2] / f"{digest}-444-{status.st_mtime_ns}-{ADA.uid}"
    assert as_user(BOB, plant(form, WRONG, 0o444, status.st_mtime_ns)) == "done"
    lie = json.loads(path.read_bytes())
    lie["directories"][-1][3] = [[row[0], 0o4755, *row[2:]] for row in lie["directories"][-1][3]]
    outline = library / "golden" / path.name

    def make_golden() -> None:
        shutil.copytree(shared.tree(BOB), library / "golden" / path.stem)

    assert as_user(BOB, plant(outline, json.dumps(lie).encode(), 0o644)) == "done"
    assert as_user(BOB, make_golden) == "done"
    for strategy in STRATEGIES:
        made = shared(ADA, "init", "--space", strategy, "app", "--strategy", strategy, "--json").json()
        if strategy == "hardlink":
            assert made["files"]["hardlinked"] == 3  # all but Bob's
        shared.is_right(ADA, strategy, shared.tree(ADA))


def test_catalog_of_another_gives_no_rights(shared: Shared, faults: Callable[[int, str, int], None]) -> None:
    """A setuid file of Ada's, which Bob could run, would make him Ada."""
    faults(6, "another user's wrong files", 2)
    shared(BOB, "record", shared.tree(BOB), "--name", "bobs")
    (path,) = (shared.home / "hololib/catalog").glob("*.json")
    for number, rights in enumerate((0o4755, 0o2755)):
        document = json.loads(path.read_bytes())
        document["directories"][0][3] = [[row[0], rights, *row[2:]] for row in document["directories"][0][3]]
        catalog = Catalog.from_json(json.dumps(document).encode(), "evil")
        known = records.read(shared.home / "hololib/names/bobs.json")
        known |= {"name": f"evil-{number}", "digest": Catalog.from_json(catalog.to_json(), "evil").digest}
        evil = path.with_name(f"{known['digest']}.json")
        assert as_user(BOB, plant(evil, catalog.to_json(), 0o644)) == "done"
        target = shared.home / f"hololib/names/evil-{number}.json"
        assert as_user(BOB, plant(target, records.dump(known), 0o644)) == "done"
        for user in (ADA, User(0)):
            assert "setuid" in shared(user, "init", "--space", "mine", f"evil-{number}", code=1).stderr
        target.unlink()  # without a name it is listed all the same
        assert known["digest"][:12] in shared(ADA, "catalogs").stdout
    shared(ADA, "init", "--space", "mine", "bobs")


def test_record_of_another_names_nothing_to_empty(shared: Shared, faults: Callable[[int, str, int], None]) -> None:
    faults(6, "another user's wrong files", 1)
    shared(ADA, "record", shared.tree(ADA), "--name", "app")
    shared(BOB, "init", "--space", "bobs", "app")
    known = records.read(shared.home / "holotree/.spaces/bobs.json")
    known |= {"name": "user", "path": str(shared.tree(ADA)), "state": "restoring"}
    record = shared.home / "holotree/.spaces/user.json"
    assert as_user(BOB, plant(record, records.dump(known), 0o644)) == "done"
    for user in (ADA, User(0)):
        for command in (
            ["restore"],
            ["restore", "--force"],
            ["delete", "--space", "user"],
            ["init", "--space", "user"],
        ):
            assert "another user's" in shared(user, *command, code=1).stderr
    assert (shared.tree(ADA) / "own").read_bytes() == b"1001's\n"
