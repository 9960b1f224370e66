"""Who could have changed the data directory, and what may have been put into it; no brokers and no worker."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
import tempfile
import time
from pathlib import Path

import pytest

from app import data_directory
from app.data_directory import DirectoryCheck, real_directory
from app.errors import DataDirectoryError
from app.own_files import open_own
from tables.engine import opening
from tables.engine.opening import Opener
from tables.figures import Mark, SyncedMark, read_mark
from tests.support.stored_messages import Maker, append, contents, make_table, opened

SECRET = b"not ours to read, and not ours to write\n"
STRANGER = 12_345
OWN_FILES = ("ballast", "format", "synced-mark", "damage-found")
IN_DATABASE = ("CURRENT", "LOCK", "000123.sst", "000124.blob", "000125.log", "LOG", "OPTIONS-000007", "MANIFEST-000009")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root alone can give a file away")


@pytest.fixture
def data(tmp_path) -> Path:
    """Return a data directory with three messages in it, of a worker that has stopped."""
    directory = tmp_path / "data"
    with opened(directory) as table:
        append(table, Maker(table).many(3))
    return directory


@pytest.fixture
def victim(tmp_path) -> Path:
    """Return a file elsewhere, which must stay as it is."""
    path = tmp_path / "elsewhere"
    path.write_bytes(SECRET)
    return path


def place_of(data, name):
    """Return where in the directory a name belongs, with nothing there."""
    path = data / "undelivered" / name if name in IN_DATABASE else data / name
    path.unlink(missing_ok=True)
    return path


def refused(data, *parts):
    """See that neither a worker nor a reader opens the directory, with a sentence that has these parts."""
    for open_it in (lambda table: table.open_to_write(), lambda table: table.open(read_only=True)):
        table = make_table(data)
        with pytest.raises(DataDirectoryError) as raised:
            try:
                open_it(table)
            finally:
                table.close()
        text = str(raised.value)
        assert text.startswith(f"DB_PERSIST_PATH {data} "), text
        assert all(part in text for part in parts), text


def bind(path, monkeypatch):
    """Leave a socket at a path, which may be too long for one."""
    monkeypatch.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)


def taken(data):
    """See that a worker opens the directory, and finds what is in it."""
    with opened(data) as table:
        assert contents(table, "alpha") == [b"0", b"1", b"2"]


# ---- no right to use it


@pytest.fixture
def open_place():
    """Return a directory that every user may enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        make_table(Path(name))  # loads what that user may not read
        yield Path(name)


@contextlib.contextmanager
def another_user():
    """Have what is done meanwhile done by a user who owns nothing."""
    os.seteuid(STRANGER)
    try:
        yield
    finally:
        os.seteuid(0)


@as_root
@pytest.mark.parametrize(
    ("owner", "mode", "advice"),
    [
        (0, 0o700, "user 0, and this process runs as {user}: if you trust what is there, chown -R {user} {path}"),
        (STRANGER, 0o000, "must be this user's: chown -R {user} {path} && chmod -R u+rwX {path}"),
    ],
)
def test_who_has_no_right_to_use_the_directory_is_told_what_gives_it(owner, mode, advice, open_place):
    """It was `Permission denied`, and no more; the neighbour, of files of another user, says it."""
    path = open_place / "data"
    path.mkdir()
    os.chown(path, owner, owner)
    path.chmod(mode)
    with another_user():
        refused(path, "cannot be used: Permission denied", advice.format(user=STRANGER, path=path))


@as_root
def test_who_cannot_make_the_directory_or_reach_it_is_told_so(open_place):
    """Nobody can give away what is not there."""
    (open_place / "closed").mkdir(mode=0o700)
    with another_user():
        for name, advice in (("new", f"make it, then chown {STRANGER}"), ("closed/data", "above it is closed")):
            with pytest.raises(DataDirectoryError, match=f"Permission denied.*{advice}"):
                make_table(open_place / name).open_to_write()


# ---- links, and what is no file


@pytest.mark.parametrize("name", [*OWN_FILES, *IN_DATABASE])
def test_a_link_among_its_files_is_refused_and_what_is_behind_it_stays(name, data, victim):
    """As `ballast` it was filled with 64 MiB, as `format` it was cut, as a table file yet to come it would be."""
    path = place_of(data, name)
    path.symlink_to(victim)
    refused(data, str(path), "a link to somewhere else", "remove it")
    assert victim.read_bytes() == SECRET
    assert path.is_symlink(), "nothing is mended behind the operator's back"


@pytest.mark.parametrize("name", OWN_FILES)
def test_a_link_to_what_does_not_exist_makes_nothing_there(name, data, tmp_path):
    place_of(data, name).symlink_to(tmp_path / "new")
    refused(data, name, "a link")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["undelivered", "salvage-new", "salvage-copy"])
def test_a_link_in_the_place_of_a_database_is_refused(name, data, tmp_path):
    """Also one that an interrupted salvage would have left: it would be renamed, and opened."""
    (data / "undelivered").rename(tmp_path / "elsewhere")
    before = sorted((tmp_path / "elsewhere").iterdir())
    (data / name).symlink_to(tmp_path / "elsewhere")
    refused(data, str(data / name), "a link")
    assert sorted((tmp_path / "elsewhere").iterdir()) == before


@pytest.mark.parametrize("name", [*OWN_FILES, "CURRENT", "LOCK", "000125.log", "LOG"])
def test_a_second_name_of_a_file_elsewhere_is_refused_and_the_file_stays(name, data, victim):
    """A hard link: to write to it is to write elsewhere, and no test for links shows it."""
    path = place_of(data, name)
    path.hardlink_to(victim)
    refused(data, str(path), "hard link")
    assert victim.read_bytes() == SECRET


def test_table_files_may_have_second_names_as_backups_give_them_some(data, tmp_path):
    with opened(data) as table:
        table.data.database.flush()
    table_files = list((data / "undelivered").glob("*.sst"))
    assert table_files
    for file in table_files:
        (tmp_path / file.name).hardlink_to(file)
    taken(data)


@pytest.mark.parametrize("kind", ["pipe", "socket", "directory"])
@pytest.mark.parametrize("name", [*OWN_FILES, "CURRENT"])
def test_what_is_no_file_is_refused_and_nobody_waits_for_it(name, kind, data, monkeypatch):
    """To open a pipe waits for whoever writes to it, for ever."""
    path = place_of(data, name)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        bind(path, monkeypatch)
    if name == "CURRENT" and kind == "directory":
        return  # RocksDB's own complaint
    refused(data, str(path), "not a file")


def test_a_file_that_is_exchanged_for_a_link_after_the_look_is_not_followed(tmp_path, victim):
    """The look is once at the start; each opening of a file of ours refuses by itself."""
    for make in (Path.symlink_to, Path.hardlink_to):
        path = tmp_path / "ballast"
        make(path, victim)
        with pytest.raises(OSError, match=r"symbolic links|of this directory alone"):
            open_own(path, os.O_WRONLY | os.O_CREAT)
        path.unlink()
    os.mkfifo(tmp_path / "format")
    with pytest.raises(OSError, match="of this directory alone"):
        open_own(tmp_path / "format", os.O_RDONLY)
    assert victim.read_bytes() == SECRET


@pytest.mark.parametrize("name", ["ballast", "format", "damage-found", "synced-mark"])
def test_whoever_opens_a_file_of_ours_follows_no_link(name, tmp_path, victim):
    """Each by itself, without the look at the start before it."""
    path = tmp_path / name
    path.symlink_to(victim)
    opener = Opener(tmp_path)
    with contextlib.suppress(OSError):
        {
            "ballast": opener.ballast.make,
            "format": opener.note_format,
            "damage-found": opener.note_damage,
            "synced-mark": lambda: SyncedMark(path).write(Mark(1, 2, 3)),
        }[name]()
    assert victim.read_bytes() == SECRET
    assert read_mark(path) == Mark()


def test_a_link_that_db_persist_path_is_itself_is_followed_once(data, tmp_path):
    """Operators do that; who exchanges it later changes nothing for who has resolved it."""
    link = tmp_path / "link"
    link.symlink_to(data)
    real = real_directory(link)
    link.unlink()
    link.symlink_to(tmp_path / "elsewhere")
    assert real == data
    taken(real)
    assert not (tmp_path / "elsewhere").exists()


# ---- owners


@as_root
@pytest.mark.parametrize("name", ["", "undelivered", "CURRENT", "000123.sst", "control.sock", "ballast", "salvage-new"])
def test_what_belongs_to_another_user_is_refused_for_root_too(name, data, monkeypatch):
    """It was taken in silence, and with it messages that somebody else wrote."""
    if name == "control.sock":
        bind(data / name, monkeypatch)
    elif name == "salvage-new":
        (data / name).mkdir()
    path = data / "undelivered" / name if name in IN_DATABASE else data / name
    if not path.exists():
        path.touch(mode=0o600)
    os.chown(path, STRANGER, -1)
    refused(data, f"{path} belongs to the user {STRANGER}", f"chown -R 0 {data}")


@as_root
def test_what_belongs_to_root_is_taken_by_any_user(data, monkeypatch):
    """Kubernetes makes volumes so, and who runs a command as root leaves a log of RocksDB's."""
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    taken(data)


# ---- rights


@pytest.mark.parametrize("right", [0o002, 0o020])
@pytest.mark.parametrize("name", ["undelivered", "CURRENT", *OWN_FILES])
def test_what_others_may_write_to_is_refused(name, right, data):
    path = data / "undelivered" / name if name in IN_DATABASE else data / name
    path.touch(mode=0o600)
    path.chmod(path.stat().st_mode | right)
    refused(data, f"may write to {path}", f"chmod -R {'o' if right == 0o002 else 'g'}-w {data}")
    path.chmod(path.stat().st_mode & ~right)
    (data / "damage-found").unlink(missing_ok=True)
    taken(data)


def test_a_directory_of_ours_that_everybody_may_write_to_is_refused_unless_it_is_like_tmp(data, caplog):
    """Whoever may make files in one like /tmp is named in a warning; it was taken in silence."""
    data.chmod(0o777)
    refused(data, "everybody on this host may write to", f"chmod o-w {data}")
    data.chmod(0o1777)
    taken(data)
    assert (
        f"everybody on this host may make files in DB_PERSIST_PATH {data}, and could have the next start" in caplog.text
    )
    caplog.clear()
    for mode in (0o700, 0o1700, 0o1755):
        data.chmod(mode)
        taken(data)
    assert caplog.text == ""


@as_root
def test_a_group_of_others_that_may_make_files_in_a_directory_like_tmp_is_named_in_a_warning(data, caplog):
    os.chown(data, -1, STRANGER)
    data.chmod(0o1770)
    taken(data)
    assert f"the group {STRANGER} may make files in DB_PERSIST_PATH {data}" in caplog.text


@as_root
def test_a_directory_that_a_group_of_others_may_write_to_is_refused(data):
    os.chown(data, -1, STRANGER)
    data.chmod(0o770)
    refused(data, f"the group {STRANGER} may write to {data}", f"chmod g-w {data}")
    os.chown(data / "undelivered", STRANGER, -1)
    refused(data, f"run it as the user {STRANGER}")  # a volume of Kubernetes, and root


def give(path, *, user, inherited=False):
    """Let a user write to a directory by an access control list, or to all that is made in it."""
    everything = 0xFFFFFFFF
    rights = [(0x01, 7, everything), (0x02, 7, user), (0x04, 7, everything), (0x10, 7, everything)]
    packed = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *right) for right in (*rights, (0x20, 7 * inherited, everything))
    )
    try:
        os.setxattr(path, f"system.posix_acl_{'default' if inherited else 'access'}", packed)
    except OSError as error:
        pytest.skip(f"the file system has no access control lists: {error}")


def test_a_user_whom_an_access_control_list_lets_write_is_refused_and_ourselves_are_not(data):
    """The mode then shows what the list allows at most, as the right of the group, and that was our own."""
    give(data, user=STRANGER)
    refused(data, f"the user {STRANGER}, by its ACL, may write to {data}", "setfacl -b")
    give(data, user=os.geteuid())
    taken(data)


def test_rights_that_a_directory_hands_on_make_no_file_that_the_next_start_refuses(tmp_path):
    """The umask does not count beside them: RocksDB's files were for all to read, and one of them to write to."""
    directory = tmp_path / "data"
    directory.mkdir(mode=0o700)
    give(directory, user=STRANGER, inherited=True)
    previous_mask = os.umask(0o077)  # as a worker has it
    try:
        with opened(directory) as table:
            append(table, Maker(table).many(3))
    finally:
        os.umask(previous_mask)
    assert not [path for path in directory.rglob("*") if path.stat().st_mode & 0o077]
    taken(directory)


def test_a_file_system_that_is_read_only_is_no_damage(data, monkeypatch):
    """It was said to be, and all that is readable would have been copied."""

    def fail(*_args, **_kwargs):
        raise RuntimeError("Read-only file system (os error 30)")

    monkeypatch.setattr(opening, "Rdict", fail)
    with pytest.raises(DataDirectoryError) as raised:
        Opener(data).open()
    assert str(raised.value) == f"DB_PERSIST_PATH {data}: read-only file system"


# ---- as volumes are made


@as_root
@pytest.mark.parametrize("mode", [0o2775, 0o2770, 0o770])
def test_a_volume_that_root_gave_to_our_group_is_taken(mode, data, monkeypatch):
    """`fsGroup` has the setgid bit; without it, it is what administrators do for a daemon."""
    os.chown(data, 0, STRANGER)
    data.chmod(mode)
    monkeypatch.setattr(os, "getegid", lambda: STRANGER)
    taken(data)


@as_root
@pytest.mark.parametrize("mode", [0o777, 0o2777])
def test_a_volume_that_root_made_for_everybody_is_taken_with_a_warning(mode, data, monkeypatch, caplog):
    """An `emptyDir`, without and with `fsGroup`."""
    os.chown(data, 0, STRANGER)
    data.chmod(mode)
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    monkeypatch.setattr(os, "getgroups", lambda: [STRANGER])
    taken(data)
    assert f"everybody on this host may write to DB_PERSIST_PATH {data}" in caplog.text


@as_root
def test_what_kubernetes_gives_to_the_group_at_each_mount_is_taken_back(data, monkeypatch):
    """Databases refused to start over that; a kubelet does it beside a running pod, too, so a reader accepts it."""
    for path in (data, *data.rglob("*")):
        os.chown(path, -1, STRANGER)
        path.chmod(stat.S_IMODE(path.stat().st_mode) | (0o2770 if path.is_dir() else 0o660))
    monkeypatch.setattr(os, "getgroups", lambda: [STRANGER])
    DirectoryCheck(data).check(tidy=False)
    assert (data / "undelivered" / "CURRENT").stat().st_mode & 0o660 == 0o660
    DirectoryCheck(data).check(tidy=True)
    assert not [path for path in data.rglob("*") if path.stat().st_mode & 0o077]
    taken(data)
    data.chmod(0o700)
    (data / "ballast").chmod(0o660)
    refused(data, f"the group {STRANGER} may write to {data / 'ballast'}")


def test_thousands_of_files_are_looked_at_in_a_moment(data):
    for number in range(2000):
        (data / "undelivered" / f"{number:06}.bak").touch(mode=0o600)
    began = time.thread_time()
    DirectoryCheck(data).check(tidy=True)
    assert time.thread_time() - began < 1, "a tenth of that, on a machine that does nothing else"
    (data / "undelivered" / "001999.bak").chmod(0o602)
    refused(data, "001999.bak")


def test_the_names_that_are_looked_at_are_those_that_are_used(data):
    """Everything that a start leaves is one of them, so none is forgotten when there are more."""
    known = {*data_directory.FILES, *data_directory.SALVAGES, data_directory.DATABASE, data_directory.SOCKET}
    assert {path.name for path in data.iterdir()} <= known
