"""The data directory: whose it must be. How the files in it that are not RocksDB's are opened is in `app.own_files`.

It holds messages that exist nowhere else. So before anything in it is read, owners and rights are checked:

- The directory and everything that is read belong to the user of this process, or to root.
- Nobody else may write to the database, nor to the files beside it. No entry is a link or anything but what it should
  be: what stands behind a link would be read, or written over, though it is no part of the directory.
- Root may have made the directory itself for everybody (an `emptyDir`); that is no more than a warning. So is a sticky
  one such as /tmp, whoever made it, as others may make files in it and neither change nor rename ours.
- Nor may a user or a group that an access control list (ACL) names. Rights that a directory hands on to what is made in
  it (a default ACL) are taken away, as the umask does not count beside them.
- Its group may write to the directory if that group is our own, or if the directory carries the mark by which
  Kubernetes gives a volume to `fsGroup`: the setgid bit, and a group of ours. Kubernetes then gives the files in it to
  that group too, at each mount, or even beside a running pod. They are accepted, and taken back from the group.

RocksDB opens its files by their paths, so they are checked beforehand. Who may rename entries of the directory could do
it in between; the same user and root can do anything. DB_PERSIST_PATH itself may be a link: it is followed once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

from app.errors import DataDirectoryError
from app.own_files import is_trusted

log = logging.getLogger(__name__)

DATABASE, SOCKET = "undelivered", "control.sock"
FILES = ("ballast", "format", "synced-mark", "damage-found")
SET_ASIDE = "damaged-"  # what the names of damaged files begin with that a repair set aside
SALVAGES = ("salvage-copy", "salvage-repaired", "salvage-building", "salvage-new")
# RocksDB never changes them once they are written, and backups and a salvage give them a second name.
MAY_HAVE_SECOND_NAMES = (".sst", ".blob")
EVERYBODY = "everybody on this host"
TAKES_MESSAGES = (
    "{} may write to DB_PERSIST_PATH {}, and could take messages that wait away, or put an older table in the place of "
    "this one; give it to this user alone (chown, chmod 700)"
)
MAKES_FILES = (
    "{} may make files in DB_PERSIST_PATH {}, and could have the next start refused by that, or fill its disk; give it "
    "to this user alone (chown, chmod 700)"
)
OTHERS = stat.S_IRWXG | stat.S_IRWXO
ACCESS_LIST, INHERITED_LIST = "system.posix_acl_access", "system.posix_acl_default"
# What to do where a command finds nothing.
AS_WORKER = "set DB_PERSIST_PATH as the worker has it (a relative path is looked for where the command is typed)"
KINDS = {stat.S_IFDIR: "a directory", stat.S_IFREG: "a file", stat.S_IFSOCK: "a socket"}


def real_directory(named: Path | None) -> Path | None:
    """Return the directory that DB_PERSIST_PATH stands for: links are followed now, and not again."""
    return None if named is None else Path(os.path.realpath(named))


def described(named: Path | None) -> str:
    """Say where the table is, and what DB_PERSIST_PATH stands for if there is a link in it."""
    real = real_directory(named)
    if named is None or real is None:
        return "memory"
    return str(named) if named.absolute() == real else f"{named} (a link; it is {real} until the worker ends)"


def no_table(directory: Path) -> DataDirectoryError:
    """Return the error that a directory has no table, with what to do about it."""
    return DataDirectoryError(f"DB_PERSIST_PATH {directory} holds no table yet: {AS_WORKER}")


def way_in(directory: Path) -> str:
    """Return what to do where this process has no right to use a data directory, as without its chown."""
    user, quoted = os.geteuid(), shlex.quote(str(directory))
    try:
        owner = directory.lstat().st_uid
    except FileNotFoundError:
        return f"it does not exist, and the user {user} cannot make it: make it, then chown {user} {quoted}"
    except OSError:
        return f"a directory above it is closed to the user {user}: let it through there (chmod o+x), or run as another"
    if owner == user:
        return f"its files and their rights must be this user's: chown -R {user} {quoted} && chmod -R u+rwX {quoted}"
    return (
        f"it belongs to the user {owner}, and this process runs as {user}: if you trust what is there, "
        f"chown -R {user} {quoted}"
    )


class DirectoryCheck:
    """Looks at a data directory, before anything in it is opened."""

    def __init__(self, directory: Path) -> None:
        """Look at the directory itself.

        Raises:
            DataDirectoryError: It is not ours alone; the text says what to do.
        """
        self._directory = directory
        self._quoted = shlex.quote(str(directory))
        found = self._look(directory, stat.S_IFDIR)
        if found is None:
            raise DataDirectoryError(
                f"DB_PERSIST_PATH {directory} holds no table yet, as it does not exist: {AS_WORKER}"
            )
        self._warning = ""
        self._group = _group_of_kubernetes(found)
        self._look(directory / DATABASE, stat.S_IFDIR)  # first, so that root is told whose it is, not to change rights
        self._check_top(found)

    def _check_top(self, found: os.stat_result) -> None:
        is_sticky = bool(found.st_mode & stat.S_ISVTX)
        for who, advice in self._strangers(found):
            if not is_sticky and (who != EVERYBODY or found.st_uid == os.geteuid()):
                raise self._refusal(f"{who} may write to {self._directory}", advice)
            self._warning = (MAKES_FILES if is_sticky else TAKES_MESSAGES).format(who, self._directory)
            return

    def _strangers(self, found: os.stat_result) -> Iterator[tuple[str, str]]:
        """Yield who else may write to the directory, and the command that takes that away."""
        if found.st_mode & stat.S_IWOTH:
            yield EVERYBODY, f"chmod o-w {self._quoted}"
        if not found.st_mode & stat.S_IWGRP:
            return
        for kind, number in _writers(self._directory, found.st_gid):
            if kind == "group" and number not in {self._group, os.getegid()}:
                yield f"the group {number}", f"chmod g-w {self._quoted}"
            if kind == "user" and not is_trusted(number):
                yield f"the user {number}, by its ACL,", f"setfacl -b {self._quoted}"

    def check(self, *, tidy: bool) -> None:
        """Look at everything in it that is ever read.

        Args:
            tidy: Take back what Kubernetes gave to the group; else that is accepted.

        Raises:
            DataDirectoryError: Something is not ours alone, or is no plain file; the text names it.
        """
        if self._warning and tidy:
            log.warning("%s", self._warning)
        if tidy:
            _forget_inherited_rights(self._directory)
        for name in FILES:
            self._check_file(self._directory / name, tidy=tidy)
        self.has_socket()
        for name in (DATABASE, *SALVAGES):
            place = self._directory / name
            found = self._look(place, stat.S_IFDIR)
            if found is not None:
                self._check_rights(place, found, tidy=tidy)
                for path in _entries(place):
                    self._check_file(path, tidy=tidy)

    def see_table(self) -> None:
        """See that a worker was here before, so that a command makes no table where the directory is mistyped.

        Raises:
            DataDirectoryError: There is no table, nor what a repair left of one.
        """
        if not any(found for name in (DATABASE, *SALVAGES) for found in _entries(self._directory / name)):
            raise no_table(self._directory)

    def has_socket(self) -> bool:
        """Tell whether there is the socket of a worker.

        Raises:
            DataDirectoryError: It is something else, or another user's.
        """
        return self._look(self._directory / SOCKET, stat.S_IFSOCK) is not None

    def _check_file(self, path: Path, *, tidy: bool) -> None:
        found = self._look(path, stat.S_IFREG, stat.S_IFDIR if path.parent != self._directory else 0)
        if found is None:
            return
        is_file = stat.S_ISREG(found.st_mode)
        if is_file and found.st_nlink > 1 and path.suffix not in MAY_HAVE_SECOND_NAMES:
            raise self._refusal(
                f"{path} is the same file as one of another name (a hard link)", "copy it to a file of its own"
            )
        self._check_rights(path, found, tidy=tidy)

    def _look(self, path: Path, *kinds: int) -> os.stat_result | None:
        """Return what is at a path, None if nothing is; refused if it is of another kind, or another user's."""
        try:
            found = path.lstat()
        except FileNotFoundError:
            return None
        except OSError as error:
            advice = f"; {way_in(self._directory)}" if isinstance(error, PermissionError) else ""
            raise DataDirectoryError(
                f"DB_PERSIST_PATH {self._directory} cannot be used: {error.strerror} ({path}){advice}"
            ) from error
        if stat.S_IFMT(found.st_mode) not in kinds:
            is_link = stat.S_ISLNK(found.st_mode)
            what = "a link to somewhere else" if is_link else f"not {KINDS[kinds[0]]}"
            raise self._refusal(f"{path} is {what}", "find out who put it there, and remove it")
        if not is_trusted(found.st_uid):
            raise self._refusal(
                f"{path} belongs to the user {found.st_uid}, and this process runs as {os.geteuid()}",
                f"run it as the user {found.st_uid}, or, if you trust what is there, "
                f"chown -R {os.geteuid()} {self._quoted}",
            )
        return found

    def _check_rights(self, path: Path, found: os.stat_result, *, tidy: bool) -> None:
        mode = found.st_mode
        if mode & stat.S_IWOTH:
            raise self._refusal(f"everybody on this host may write to {path}", f"chmod -R o-w {self._quoted}")
        if not mode & stat.S_IWGRP:
            return
        if found.st_gid != self._group:
            raise self._refusal(f"the group {found.st_gid} may write to {path}", f"chmod -R g-w {self._quoted}")
        if tidy:
            with contextlib.suppress(OSError):  # it is root's, then; or the file has gone meanwhile
                _take_back(path)

    def _refusal(self, fault: str, advice: str) -> DataDirectoryError:
        return DataDirectoryError(
            f"DB_PERSIST_PATH {self._directory} is not taken: {fault}, so somebody may have changed the messages that "
            f"wait, or could have files elsewhere changed. Look at what is there, then: {advice}"
        )


def _group_of_kubernetes(found: os.stat_result) -> int | None:
    """Return the group to which Kubernetes gave a volume (fsGroup); None if it has not the mark of that."""
    is_marked = found.st_mode & stat.S_ISGID and found.st_gid in {os.getegid(), *os.getgroups()}
    return found.st_gid if is_marked else None


def _writers(directory: Path, group: int) -> list[tuple[str, int]]:
    """Return which users and groups may write to a directory besides its owner, where its mode says that some may."""
    try:
        content = os.getxattr(directory, ACCESS_LIST, follow_symlinks=False)
        rights = list(struct.iter_unpack("<HHI", content[4:]))
    except (OSError, struct.error):  # there is none, or the file system has none
        return [("group", group)]
    mask = next((allowed for tag, allowed, _ in rights if tag == 0x10), os.W_OK)
    writing = [(tag, number) for tag, allowed, number in rights if allowed & mask & os.W_OK]
    kinds = {0x02: "user", 0x04: "group", 0x08: "group"}
    return [(kinds[tag], group if tag == 0x04 else number) for tag, number in writing if tag in kinds]


def make_own(directory: Path) -> None:
    """Make a directory in a data directory if it is missing: its owner's alone, as is all that is made in it."""
    directory.mkdir(mode=0o700, exist_ok=True)
    _forget_inherited_rights(directory)


def _forget_inherited_rights(directory: Path) -> None:
    """Take away what a directory would let others do with each file that is made in it, whatever the umask."""
    with contextlib.suppress(OSError):  # there are none; or it is root's, and those in it are ours
        os.removexattr(directory, INHERITED_LIST, follow_symlinks=False)


def _entries(place: Path) -> Iterator[Path]:
    """Iterate over the entries of a directory, of which some may go meanwhile."""
    with contextlib.suppress(FileNotFoundError), os.scandir(place) as found:
        yield from (Path(entry.path) for entry in found)


def _take_back(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, stat.S_IMODE(os.fstat(descriptor).st_mode) & ~OTHERS)
    finally:
        os.close(descriptor)
