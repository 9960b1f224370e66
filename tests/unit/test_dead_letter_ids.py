"""Dead letters by their ids: one form, all or nothing, and counts that are true again; no brokers and no worker."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from app.core.requests import SetAside
from app.errors import ConnectorError, DataDirectoryError
from app.metrics import accounts
from app.pages.exposition import values_of_routes
from app.routes import RouteTable
from app.throttle import Progress
from tables import dead_letters, figures, layout
from tables.dead_letters import Counts
from tests.support.app_settings import app_settings
from tests.support.dispatched import Dispatched
from tests.support.oracle import wait_until
from tests.support.stored_messages import Maker, add_dead_letter, append, database, make_table, opened, remove
from tests.unit.test_turns import with_others

with app_settings():
    from app import control
    from app.commands import tap
    from app.commands.dead_letters import DeadLetterDesk
    from app.commands.drain import DrainCommand
    from app.control import ControlServer, ask_worker
    from app.pages import dead_letters as pages
    from app.pages.dead_letters import DeadLetterPages
    from app.pages.reuse import Share
    from app.storage.dead_letter_commands import DeadLetterCommands
    from app.storage.dead_letters import DeadLetters
    from app.storage.oversize import Oversize
    from app.storage.writer import TableWriter

TOKEN = "a-token-for-these-tests"
UNKNOWN = "0" * 24


def spelled_otherwise(name):
    """Return other texts that somebody, or Python's own conversion, could take for the same id."""
    digits = {ord("0"): "٠", ord("1"): "\N{FULLWIDTH DIGIT ONE}"}  # noqa: RUF001, they are meant
    return [
        name.upper() if name.upper() != name else f" {name}", f" {name}", f"{name} ", f"{name}\n", f"\t{name}",
        " ".join(name[i : i + 2] for i in range(0, 24, 2)), f"{name[:8]} {name[8:]}", f"{name[:8]}_{name[8:]}",
        f"+{name}", f"-{name}", f"0x{name}", f"44{name}", f"00{name}", name[2:], name[:-1], f"{name}0", "",
        f"{name}\0", name.translate(digits), f"\N{ZERO WIDTH SPACE}{name}", f"{name},{name}", "D" + name, "*", "../x",
    ]  # fmt: skip


@contextmanager
def with_dead_letters(directory, payloads=(b"first", b"second", b"third"), topic="alpha"):
    """Open a table with dead letters in it, and what retries and deletes them beside a worker."""
    with opened(directory) as table:
        make = Maker(table)
        for payload in payloads:
            add_dead_letter(table, make(payload=payload), topic)
        dispatcher = Dispatched()
        letters = DeadLetters(table, dispatcher, None, lambda _: make().key, RouteTable([]))
        oversize = Oversize(table, dispatcher, list)
        writer = TableWriter(
            table, dispatcher, list, drop_oldest=False, dead_letters=letters, oversize=oversize, routes=RouteTable([])
        )
        writer._syncs.soon = lambda: None
        by_hand = DeadLetterCommands(table, dispatcher, letters, writer)
        yield SimpleNamespace(
            table=table, by_hand=by_hand, dispatcher=dispatcher, requests=dispatcher.requests, letters=letters,
            make=make, retry=lambda ids: asyncio.run(by_hand.retry(ids)), writer=writer,
        )  # fmt: skip


def state(table):
    """Return everything that a command could change."""
    return (
        [(letter.id, letter.message.payload) for letter in table.dead_letters()], table.dead_messages, table.dead_bytes,
        table.total_messages, table.figures.write_number,
    )  # fmt: skip


def true_counts(table):
    """Return what the counts of dead letters must be."""
    found = list(table.dead_letters())
    return Counts(len(found), sum(letter.entry_bytes for letter in found))


# ---- one form, all or nothing


def test_an_id_has_one_form_and_no_other_text_changes_anything(tmp_path):
    """Six spellings of one id deleted one dead letter three times, and the count was -2 for ever."""
    with with_dead_letters(tmp_path) as there:
        before = state(there.table)
        name = before[0][0][0]
        for text in spelled_otherwise(name):
            for ids in ([text], [name, text], [text, name]):
                for change in (there.by_hand.delete, there.retry):
                    with pytest.raises(ConnectorError, match=r"^nothing was changed: "):
                        change(ids)
                    assert (state(there.table), there.requests.to_be_stored) == (before, []), text
        assert there.by_hand.delete([name]) == 1
        assert there.table.letters.counted() == true_counts(there.table)


@pytest.mark.parametrize("action", ["delete", "retry"])
@pytest.mark.parametrize("beside", [True, False], ids=["with a worker", "without"])
def test_an_id_that_is_repeated_or_unknown_changes_nothing_and_is_named(action, beside, tmp_path):
    with with_dead_letters(tmp_path) as there:
        first, second, _ = [name for name, _ in state(there.table)[0]]
        before = state(there.table)
        if not beside:
            there.table.close()
        for ids, part in (
            ((first, first), f"'{first}' is named more than once;"),
            ((first, second, first), f"'{first}' is named more than once;"),
            ((first, UNKNOWN), f"'{UNKNOWN}' is the id of no dead letter;"),
            ((first, UNKNOWN, UNKNOWN[1:] + "1"), f"'{UNKNOWN}', '{UNKNOWN[1:]}1' are the ids of no dead letters;"),
            ((first, "x", "y", "z", "u"), r"'x', 'y', 'z' and 1 more are no ids \(24"),
            ((first, "abc"), r"'abc' is no id \(24 digits"),
        ):
            with pytest.raises(ConnectorError, match=part):
                if beside:
                    (there.by_hand.delete if action == "delete" else there.retry)(ids)
                else:
                    at_desk(tmp_path, action, *ids)
        if not beside:
            there.table.open()
        assert state(there.table)[:4] == before[:4]


def at_desk(directory, action, *ids, everything=False):
    """Do what the command line asks for where no worker runs."""
    desk = DeadLetterDesk(make_table(directory), directory, RouteTable([]))
    try:
        return [told.text for told in desk.answer(action, ids, everything=everything)]
    finally:
        desk.close()


def test_what_the_command_line_does_not_mean_is_refused(tmp_path):
    with with_dead_letters(tmp_path) as there:
        name = state(there.table)[0][0][0]
    for action, ids, everything in (
        ("delete", [name], True), ("retry", [name], True), ("list", [name], False), ("list", [], True),
        ("delete", [], False), ("move", ["alpha"], True), ("move", [], False), ("Delete", [name], False),
    ):  # fmt: skip
        with pytest.raises(ConnectorError):
            at_desk(tmp_path, action, *ids, everything=everything)
    assert at_desk(tmp_path, "list")[-1] == "3 dead letters"
    assert at_desk(tmp_path, "delete", name) == ["1 dead letters deleted"]
    assert at_desk(tmp_path, "delete", everything=True) == ["2 dead letters deleted"]
    assert at_desk(tmp_path, "list") == ["0 dead letters"]


def test_topics_that_differ_in_blanks_alone_are_quoted_on_the_command_line(tmp_path):
    """Columns have two blanks between them."""
    topics = ["pump 1", "pump  1", " pump 1 ", "pump 1'  7 bytes  'payload"]
    with with_dead_letters(tmp_path, []) as there:
        for topic in topics:
            message = there.make()
            message.headers[-1:] = [("mqtt-topic", topic.encode())]
            add_dead_letter(there.table, message, "alpha")
    lines = at_desk(tmp_path, "list")[:-1]
    assert [line[24:] for line in lines] == [f"  too_large  alpha  {topic!r}  7 bytes  'payload'" for topic in topics]


def test_one_named_dead_letter_without_a_mapping_keeps_the_others_where_they_are(tmp_path):
    """The others were retried, and it was left out without a word."""
    with with_dead_letters(tmp_path) as there:
        add_dead_letter(there.table, there.make(payload=b"unmapped"), "")
        before = state(there.table)
        names = [name for name, _ in before[0]]
        with pytest.raises(ConnectorError, match=f"no route matches .* {names[-1]}"):
            there.retry(names)
        assert (state(there.table), there.requests.to_be_stored) == (before, [])
        assert there.retry([]) == 3, "all: those that can go"


def test_what_is_on_its_way_is_neither_retried_nor_deleted_by_its_id(tmp_path):
    """Two commands on one id, one after the other, before the first is stored."""
    with with_dead_letters(tmp_path) as there:
        first, second, third = [name for name, _ in state(there.table)[0]]
        assert there.retry([first]) == 1
        for change in (there.retry, there.by_hand.delete):
            with pytest.raises(ConnectorError, match=f"{first} is on its way to Kafka already"):
                change([second, first])
        append(there.table, there.requests.to_be_stored)
        with pytest.raises(ConnectorError, match="is the id of no dead letter"):
            there.by_hand.delete([first])
        assert [name for name, _ in state(there.table)[0]] == [second, third]
        assert there.table.letters.counted() == true_counts(there.table)


@pytest.mark.parametrize("order", [("retry", "delete all"), ("delete all", "retry"), ("retry", "retry")])
def test_commands_that_race_count_nothing_twice(order, tmp_path):
    with with_dead_letters(tmp_path) as there:
        for what in order:
            if what == "retry":
                there.retry([])
            else:
                assert there.by_hand.delete([]) == (3 if order[0] == what else 0), "they are on their way"
        append(there.table, there.requests.to_be_stored)
        assert there.table.letters.counted() == true_counts(there.table) == Counts(0, 0)
        assert there.table.total_messages == (0 if order[0] == "delete all" else 3)


def test_more_than_memory_holds_is_not_retried_by_ids_and_one_alone_is(tmp_path, monkeypatch):
    """It was cut to the first 16 MiB, and said so by a smaller number alone."""
    monkeypatch.setattr(dead_letters, "RETRIED_BYTES", 1000)
    with with_dead_letters(tmp_path, [b"x" * 2000, b"y" * 600]) as there:
        first, second = [name for name, _ in state(there.table)[0]]
        with pytest.raises(ConnectorError, match="nothing was changed: these dead letters take"):
            there.retry([first, second])
        assert there.retry([first]) == 1
        with pytest.raises(ConnectorError, match=f"name {dead_letters.MOST_IDS} in one command at most"):
            there.by_hand.delete([second] * (dead_letters.MOST_IDS + 1))


# ---- the doors: the socket and the page


def sent(directory, *lines):
    """Send lines to the control socket, a connection each, and return the answers."""

    def ask(line):
        with socket.socket(socket.AF_UNIX) as connection, control._short_path(directory) as path:
            connection.settimeout(10)
            connection.connect(path)
            connection.sendall(line + b"\n")
            with connection.makefile() as answer:
                return json.loads(answer.readline())

    return [ask(line) for line in lines]


def with_server(by_hand, directory, work):
    """Run blocking work beside a control server."""

    async def run():
        actions = {"retry": by_hand.retry, "delete": by_hand.delete}
        server = ControlServer(directory, actions)
        await server.on_start()
        try:
            return await asyncio.get_running_loop().run_in_executor(None, work, server)
        finally:
            for _ in range(3):  # until the last connection has begun: asyncio forgets one that has not
                await asyncio.sleep(0)
            await server.on_stop()
            while others := asyncio.all_tasks() - {asyncio.current_task()}:  # what still closes its connection
                await asyncio.wait(others)
            await asyncio.sleep(0)

    return asyncio.run(run())


def test_the_socket_takes_one_form_of_request_and_no_text_for_a_list(tmp_path):
    """The ids of "" were none, and so all of them."""
    with with_dead_letters(tmp_path) as there:
        before = state(there.table)
        name = before[0][0][0]
        bad = [
            {"action": "delete", "ids": ""}, {"action": "delete", "ids": {}}, {"action": "delete", "ids": name},
            {"action": "delete", "ids": None}, {"action": "delete"}, {"action": "delete", "ids": [1]},
            {"action": "delete", "ids": [name, None]}, {"action": ["delete"], "ids": []}, {"action": "", "ids": []},
            {"action": "__init__", "ids": []}, {"action": "delete", "ids": [[]]}, [], "delete", 1, None,
            {"action": "delete", "ids": [], "all": False},
        ]  # fmt: skip
        lines = [json.dumps(each).encode() for each in bad] + [b"", b"{", b"\xff", b"[" * 200_000, b'{"action":']
        whole = json.dumps({"action": "delete", "ids": [name]})
        lines += [
            b'{"action": "list", "action": "delete", "ids": []}', whole.encode("utf-8-sig"), whole.encode("utf-16-le"),
            b'{"action": "delete", "ids": ["%b"], "ids": []}' % name.encode(), whole.encode("utf-32"),
            whole.replace("}", ', "\\u0069ds": []}').encode(), whole.replace("}", ', "x": NaN}').encode(),
            whole.replace("]", ', "\\ud800"]').encode(), whole.encode() + b"{}", whole.encode() + b"\0",
        ]  # fmt: skip
        answers = with_server(there.by_hand, tmp_path, lambda _: sent(tmp_path, *lines))
        assert {answer.get("error", "").partition(":")[0] for answer in answers} == {"not a request"}
        texts = [f"{name[:6]} {name[6:]}", name.upper() + "0", name + "\n"]
        wrong = [json.dumps({"action": "delete", "ids": [text, name]}).encode() for text in texts]
        answers = with_server(there.by_hand, tmp_path, lambda _: sent(tmp_path, *wrong))
        assert all(answer["error"].startswith("nothing was changed: ") for answer in answers)
        assert state(there.table) == before
        right = json.dumps({"action": "delete", "ids": [name]}).encode()
        assert with_server(there.by_hand, tmp_path, lambda _: sent(tmp_path, right)) == [{"result": 1}]


@pytest.mark.parametrize("error", [ValueError("7d20"), KeyError("7d20"), asyncio.TimeoutError("7d20"), OSError("7d20")])
def test_a_command_that_fails_as_nobody_expected_is_answered_all_the_same(error, tmp_path, caplog):
    """A reload of routes that could not be told apart closed the connection without a word."""

    async def fail(_ids):
        raise error

    async def run():
        server = ControlServer(tmp_path, {"reload": fail, "routes": lambda _ids: object(), "recount": lambda _ids: 3})
        await server.on_start()
        lines = [json.dumps({"action": action, "ids": []}).encode() for action in ("reload", "routes", "recount")]
        try:
            return await asyncio.get_running_loop().run_in_executor(None, lambda: sent(tmp_path, *lines))
        finally:
            await server.on_stop()

    failed, no_json, fine = asyncio.run(run())
    unexpected = "the worker could not do it, as something unexpected happened ({}); its log says more"
    assert failed == {"error": unexpected.format(type(error).__name__)}
    assert no_json == {"error": unexpected.format("TypeError")}
    assert fine == {"result": 3}
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [type(error), TypeError]


def test_a_directory_in_which_no_socket_can_be_made_is_told_in_a_sentence(tmp_path):
    """It may be read and its database written, as with mode 0500; the end was a traceback and exit code 1."""
    server = ControlServer(tmp_path / "gone", {})
    with pytest.raises(DataDirectoryError, match="cannot be used: No such file or directory; the worker must be able"):
        asyncio.run(server.on_start())


def test_commands_that_never_come_are_said_once_and_why(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.01)

    def connect_and_say_nothing(_server):
        for _ in range(5):
            with socket.socket(socket.AF_UNIX) as connection, control._short_path(tmp_path) as path:
                connection.settimeout(10)
                connection.connect(path)
                assert connection.recv(1) == b""

    with with_dead_letters(tmp_path) as there:
        with_server(there.by_hand, tmp_path, connect_and_say_nothing)
    said = [record.getMessage() for record in caplog.records if record.name == "app.control"]
    assert said == ["a command was not answered: it did not come within 0 s"]


def test_who_looks_whether_a_worker_runs_here_and_asks_for_nothing_is_no_news(tmp_path, caplog):
    """`check` beside a worker left a warning in its log."""
    with with_dead_letters(tmp_path) as there:
        assert with_server(there.by_hand, tmp_path, lambda _: control.worker_process(tmp_path)) == os.getpid()
    assert not [record for record in caplog.records if record.name == "app.control"]


def test_a_command_beside_no_worker_says_to_start_it_unless_the_directory_does_not_exist(tmp_path):
    """A relative DB_PERSIST_PATH is another one where the command is typed elsewhere; `start it` misled."""

    async def first_of_tap(path):
        return await anext(tap.passing(path, "#", asyncio.Event()))

    (tmp_path / "data").mkdir(mode=0o700)
    for name, advice in (
        ("data", "start it"),
        ("gone", "that directory does not exist: set DB_PERSIST_PATH as"),
    ):
        path = tmp_path / name
        for ask in (DrainCommand(path, 1.0, asyncio.Event()).wait(print), first_of_tap(path)):
            with pytest.raises(ConnectorError, match=f"^no worker runs on {path}: {advice}"):
                asyncio.run(ask)
        with pytest.raises(ConnectorError, match=f"^no worker runs on {path}: "):
            DeadLetterDesk(None, path, RouteTable(()))._asked_to_move(("alpha",))
    assert not (tmp_path / "gone").exists()


def test_twenty_commands_that_delete_the_same_at_once_delete_it_once(tmp_path):
    with with_dead_letters(tmp_path) as there:
        name = state(there.table)[0][0][0]
        line = json.dumps({"action": "delete", "ids": [name]}).encode()

        async def all_at_once():
            server = ControlServer(tmp_path, {"delete": there.by_hand.delete})
            return await asyncio.gather(*[server._answer(line) for _ in range(20)])

        answers = asyncio.run(all_at_once())
        assert sorted(answer.get("result", 0) for answer in answers) == [0] * 19 + [1]
        assert there.table.letters.counted() == true_counts(there.table)


def test_a_socket_that_is_a_link_or_a_strangers_is_not_spoken_to(tmp_path, monkeypatch):
    """What a command says to it is a request, and what it says would be the command's answer."""
    with with_dead_letters(tmp_path / "real") as there:

        def attack(_):
            (tmp_path / "other").mkdir()
            (tmp_path / "other" / "control.sock").symlink_to(tmp_path / "real" / "control.sock")
            with pytest.raises(DataDirectoryError, match="is a link to somewhere else"):
                ask_worker(tmp_path / "other", "delete")
            monkeypatch.setattr(control, "_user_of", lambda _: 12_345)
            with pytest.raises(DataDirectoryError, match="is of another user"):
                ask_worker(tmp_path / "real", "delete")

        with_server(there.by_hand, tmp_path / "real", attack)
        assert there.table.dead_messages == 3
    assert ask_worker(tmp_path / "none", "delete") is None


def test_a_command_that_waits_while_the_worker_stops_is_left_without_a_word_and_one_that_is_done_is_answered(
    tmp_path, caplog
):
    """asyncio logged an error with a traceback for each."""
    silent, asked = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)

    class Slow(ControlServer):
        async def perform(self, action, ids):
            await asyncio.sleep(0.1)
            return await super().perform(action, ids)

    async def run():
        server = Slow(tmp_path, {"retry": lambda _ids: 7})
        await server.on_start()
        with control._short_path(tmp_path) as path:
            for each in (silent, asked):
                each.settimeout(10)
                each.connect(path)
        asked.sendall(b'{"action": "retry", "ids": []}\n')
        while not any(server._serving.values()):
            await asyncio.sleep(0.001)
        await server.on_stop()

    with silent, asked, caplog.at_level("DEBUG"):
        asyncio.run(run())
        assert (silent.recv(100), asked.recv(100)) == (b"", b'{"result": 7}\n')
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("said", [b"", b'{"result"', b"[]\n", b"\xff\n"])
def test_a_worker_that_ends_within_its_answer_is_told_in_a_sentence(said, tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    with listener, ThreadPoolExecutor() as beside:
        with control._short_path(tmp_path) as path:
            listener.bind(path)
        listener.listen()
        answer = beside.submit(ask_worker, tmp_path, "retry")
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(100)
            connection.sendall(said)
        with pytest.raises(ConnectorError, match="the worker ended before it answered"):
            answer.result(10)


def not_quite_json(whole):
    """Return texts that some readers take for this one, and others for another, or for none."""
    return [
        whole.encode("utf-8-sig"), whole.encode("utf-16"), whole.encode("utf-16-be"), whole.encode("utf-32-le"),
        whole.encode() + whole.encode(), whole.replace("{", '{"ids": [], ').encode(), whole.encode() + b"\0",
        whole.replace("{", '{"all": false, ').encode(), whole.replace("}", ', "x": 1}').encode(),
        whole.replace("}", ', "x": -Infinity}').encode(), whole.replace("}", ', "x": 1e999}').encode(),
        whole.replace("}", ', "\\u0061ll": true}').encode(), whole.replace("}", "} // x").encode(),
    ]  # fmt: skip


def test_the_page_changes_nothing_for_ids_of_another_form(tmp_path):
    with with_dead_letters(tmp_path) as there:
        before = state(there.table)
        name = before[0][0][0]
        server = ControlServer(tmp_path, {"delete": there.by_hand.delete})
        page = DeadLetterPages(there.table, server, TOKEN, Share())

        def posted(body):
            return asyncio.run(page.change("delete", f"Bearer {TOKEN}", json.dumps(body).encode()))

        for text in spelled_otherwise(name):
            assert posted({"ids": [name, text]}).status == 409, text
        assert posted({"ids": [name, name]}).status == 409
        for body in ({"ids": [name], "all": True}, {"ids": [], "all": True}, {"ids": {name: 1}}, {"all": 1}):
            assert posted(body).status == 400, body
        for text in not_quite_json('{"ids": ["%s"]}' % name):  # noqa: UP031, braces
            assert asyncio.run(page.change("delete", f"Bearer {TOKEN}", text)).status == 400, text
        for text in not_quite_json('{"all": true}'):
            assert asyncio.run(page.change("delete", f"Bearer {TOKEN}", text)).status == 400, text
        assert state(there.table) == before
        assert json.loads(posted({"ids": [name]}).text) == {"count": 1}


@pytest.mark.parametrize("authorization", [None, f"Bearer {TOKEN}"])
def test_the_list_is_made_once_as_the_text_that_is_sent_until_another_one_is_due(authorization, tmp_path, monkeypatch):
    """Its reading was used again, and escaping of long topics and JSON were made for each request."""
    made = []
    escaped_json = pages.escaped_json
    monkeypatch.setattr(pages, "escaped_json", lambda content: made.append(content) or escaped_json(content))
    with with_dead_letters(tmp_path) as there:
        page = DeadLetterPages(there.table, None, TOKEN, Share())
        texts = {page.listing(authorization) for _ in range(100)}
        assert (len(texts), len(made)) == (1, 1)
        shown = [letter["payload"] for letter in made[0]["dead_letters"]]
        assert shown == ([None] * 3 if authorization is None else ["'first'", "'second'", "'third'"])
        there.by_hand.delete([state(there.table)[0][0][0]])
        wait_until(lambda: json.loads(page.listing(authorization).text)["count"] == 2, "the list without it")
        assert len(made) == 2
        there.table.data.database[b"D" + bytes(12)] = b"nonsense"
        add_dead_letter(there.table, there.make(), "alpha")
        wait_until(lambda: page.listing(authorization).status == 409, "that it cannot be read")
        assert len({page.listing(authorization) for _ in range(100)}) == 1
        assert len(made) == 3


# ---- counts


def test_the_oldest_give_way_once_though_many_come_in_one_write(tmp_path):
    """What gives way is read until the write is committed: it was counted out again for each that came."""
    with with_dead_letters(tmp_path, [b"old" * 100] * 4) as there:
        table = there.table
        table.limit_bytes = 3000  # dead letters may take a tenth: not one of these fits beside another
        write = table.begin()
        for _ in range(3):
            message = there.make(payload=b"x" * 10)
            message.dead_reason, message.destination = "too_large", there.dispatcher.destination("alpha")
            there.letters.add(message, write)
            there.letters.drop_oldest(write)
        write.commit()
        assert table.letters.counted() == true_counts(table)


def test_others_have_a_turn_while_large_dead_letters_give_way_for_a_larger_one(tmp_path, monkeypatch):
    """P5: a hundred of a megabyte were read in one go."""
    monkeypatch.setattr("app.storage.dead_letters.PART_SECONDS", 0.0)
    with with_dead_letters(tmp_path, [b"x" * 100_000] * 20) as there:
        there.table.limit_bytes = 20_500_000
        message = there.make(payload=b"y" * 1_000_000)
        message.dead_reason, message.destination = "too_large", there.dispatcher.destination("alpha")
        counted = asyncio.run(with_others(there.writer.do(SetAside([message]))))
        assert [len(each.message.payload) for each in there.table.dead_letters()] == [100_000] * 10 + [1_000_000]
        assert counted >= 10
        assert there.table.letters.counted() == true_counts(there.table)


def test_a_dead_letter_that_ends_in_a_write_is_counted_out_once(tmp_path):
    with with_dead_letters(tmp_path) as there:
        (first, *_) = there.table.dead_letters()
        write = there.table.begin()
        for _ in range(3):
            write.remove_dead_letter(first.key, first.value_bytes)
        write.append([first.revived(there.make().key)])
        write.commit()
        assert there.table.letters.counted() == true_counts(there.table)


def make_wrong(directory, messages, size_bytes):
    """Leave counts in the table as an older version could."""
    with database(directory) as files:
        files[layout.META + b"dead"] = layout.pack((messages, size_bytes))


@pytest.mark.parametrize("wrong", [(-2, -200), (0, 0), (1_000_000, 1), (3, 7)])
def test_counts_that_are_wrong_are_put_right_beside_what_is_written(wrong, tmp_path, monkeypatch, caplog):
    """connector_dead_letter_messages was -2, and stayed so."""
    monkeypatch.setattr(dead_letters, "SLICE_SECONDS", -1.0)  # a pause after each entry
    monkeypatch.setattr(dead_letters, "PAUSE_SECONDS", 0.0)
    with with_dead_letters(tmp_path):
        pass
    make_wrong(tmp_path, *wrong)
    with opened(tmp_path) as table:
        make = Maker(table)

        async def beside():
            counting = asyncio.create_task(table.letters.count_beside())
            for _ in range(2):
                await asyncio.sleep(0)
                add_dead_letter(table, make(payload=b"meanwhile"), "alpha")
            table.letters.delete([next(table.dead_letters()).id])
            await counting

        asyncio.run(beside())
        assert table.letters.counted() == true_counts(table) == Counts(4, table.dead_bytes)
    assert "the counts are put right" in caplog.text
    with opened(tmp_path) as table:
        assert table.letters.counted() == true_counts(table)


def test_the_oldest_does_not_give_way_to_a_count_that_is_wrong(tmp_path):
    """One that was far too high had all dead letters deleted when the next one came."""
    with with_dead_letters(tmp_path):
        pass
    make_wrong(tmp_path, 3, 10**12)
    with with_dead_letters(tmp_path, []) as there:
        there.table.letters.are_counted = False  # as `on_start` has it
        for number in range(2):
            write = there.table.begin()
            message = there.make(payload=b"one more")
            message.dead_reason, message.destination = "too_large", there.dispatcher.destination("alpha")
            there.letters.add(message, write)
            there.letters.drop_oldest(write)
            write.commit()
            assert len(list(there.table.dead_letters())) == 4 + number
            if not number:
                asyncio.run(there.table.letters.count_beside())
        assert there.table.letters.counted() == true_counts(there.table)


def test_large_dead_letters_are_counted_at_the_start_and_when_asked_for_and_never_beside_messages(
    tmp_path, monkeypatch
):
    """To read one of 60 MB held up everything for half a second."""
    monkeypatch.setattr(figures, "LARGE_LETTER_BYTES", 1000)
    with with_dead_letters(tmp_path, [b"small", b"x" * 2000, b"small"]):
        pass
    make_wrong(tmp_path, 9, 9)
    with opened(tmp_path) as table:
        asyncio.run(table.letters.count_beside(large_too=False))
        assert table.letters.counted() == Counts(9, 9)
        asyncio.run(table.letters.count_beside(large_too=True))
        assert table.letters.counted() == true_counts(table)
    make_wrong(tmp_path, 9, 9)
    with opened(tmp_path) as table:
        assert not table.letters.count_now(Progress(print), 0.0), "there was no time"
        assert table.letters.counted() == Counts(9, 9)
        assert table.letters.count_now(Progress(print), 60.0)
        assert table.letters.counted() == true_counts(table)


def test_a_table_that_is_closed_while_it_is_counted_can_be_opened_again(tmp_path, monkeypatch):
    monkeypatch.setattr(dead_letters, "SLICE_SECONDS", -1.0)
    with with_dead_letters(tmp_path) as there:

        async def close_meanwhile():
            counting = asyncio.create_task(there.table.letters.count_beside())
            await asyncio.sleep(0)
            there.table.close()
            with opened(tmp_path) as table:
                assert table.letters.counted() == true_counts(table)
            await counting

        asyncio.run(close_meanwhile())


def test_the_list_says_that_the_count_is_wrong_and_any_command_puts_it_right(tmp_path, capsys):
    with with_dead_letters(tmp_path) as there:
        size_bytes = there.table.dead_bytes
        first = state(there.table)[0][0][0]
    assert at_desk(tmp_path, "list")[-1] == "3 dead letters"
    assert capsys.readouterr().err == ""
    make_wrong(tmp_path, 5, size_bytes)
    assert at_desk(tmp_path, "list")[-1] == "3 dead letters"
    assert capsys.readouterr().err == (
        f"the table counts 5 dead letters of {size_bytes} bytes, and holds 3 of {size_bytes}: the next start of the "
        "worker counts them anew\n"
    )
    at_desk(tmp_path, "delete", first)
    at_desk(tmp_path, "list")
    assert capsys.readouterr().err == ""


def test_counts_below_zero_of_undelivered_messages_are_counted_anew_at_the_start(tmp_path):
    with opened(tmp_path) as table:
        append(table, Maker(table).many(3))
        size_bytes = table.total_bytes
    with database(tmp_path) as files:
        files[layout.ACCOUNT + b"a/#:alpha"] = layout.pack((-1, 50))
    for _ in range(2):
        with opened(tmp_path) as table:
            assert (table.total_messages, table.total_bytes, table.lost_messages) == (3, size_bytes, 0)


def test_an_empty_table_that_counts_something_is_put_right_with_the_accounts(tmp_path, caplog):
    accounts.clear()
    with opened(tmp_path) as table:
        append(table, Maker(table).many(3))
        table.upkeep.check_empty()
        assert table.total_messages == 3
    with database(tmp_path) as files:
        for key in list(files.keys(from_key=layout.UNDELIVERED)):
            if key.startswith(layout.UNDELIVERED):
                del files[key]
    with opened(tmp_path) as table:
        account = accounts["a/#:alpha"]
        account.recovered = account.undelivered = 3
        account.undelivered_bytes = table.total_bytes
        table.upkeep.check_empty()
        assert account.dropped == {"miscounted": 3}
        assert (table.figures.messages, table.figures.bytes, len(table)) == ({"a/#:alpha": 0}, {"a/#:alpha": 0}, 0)
        assert (account.undelivered, account.undelivered_bytes, account.imbalance) == (0, 0, 0)
        assert "the table counted 3 undelivered messages, and is empty" in caplog.text
        table.upkeep.check_empty()
    accounts.clear()
    with opened(tmp_path) as table:
        assert table.total_messages == 0


def test_messages_that_the_table_counted_too_few_of_are_no_number_below_zero_and_balance_when_it_is_empty(tmp_path):
    route = "a/#:alpha"
    accounts.clear()
    with opened(tmp_path) as table:
        append(table, Maker(table).many(3))
    with database(tmp_path) as files:
        files[layout.ACCOUNT + route.encode()] = layout.pack((1, 50))
    with opened(tmp_path) as table:
        account = accounts[route]
        account.recovered, account.undelivered, account.undelivered_bytes = 1, 1, table.total_bytes
        prefix = layout.undelivered_prefix("alpha")
        messages = table.read(prefix, prefix, 10, 10_000)
        remove(table, messages)
        for message in messages:
            account.leave_table(message.stored_bytes)
            account.delivered += 1
        values = {
            name: [value for (label,), value in values_of_routes(accounts, name) if label == route]
            for name in ("connector_undelivered_messages", "connector_undelivered_bytes")
        }
        assert values == {"connector_undelivered_messages": [0], "connector_undelivered_bytes": [0]}
        table.upkeep.check_empty()
        assert (account.recovered, account.undelivered, account.undelivered_bytes, account.imbalance) == (3, 0, 0, 0)
        assert (table.total_messages, table.total_bytes) == (0, 0)
    accounts.clear()


# ---- on their way back


def test_a_dead_letter_that_is_asked_for_again_before_it_is_stored_is_sent_once(tmp_path):
    """P3: a button that is pressed twice; or Kafka and the table stand still for a while."""
    with with_dead_letters(tmp_path, [b"first"]) as there:
        assert [there.retry([]), there.retry([])] == [1, 0]
        append(there.table, there.requests.to_be_stored)
        assert not list(there.table.dead_letters())
        (message,) = there.requests.to_be_stored
        add_dead_letter(there.table, message, "alpha")  # refused once more
        there.requests.table.clear()
        assert [there.retry([]), there.retry([])] == [1, 0]
        assert len(there.requests.to_be_stored) == 1


def test_a_dead_letter_that_is_refused_again_before_it_is_stored_is_never_missing(tmp_path):
    """P1: the write that has it as a dead letter once more ends the former one, whoever is killed when."""
    with with_dead_letters(tmp_path, [b"first"]) as there:
        (letter,) = there.table.dead_letters()
        again = letter.revived(there.make().key)
        again.destination, again.dead_reason = there.dispatcher.destination("alpha"), "too_large"
        write = there.table.begin()
        there.letters.add(again, write)
        assert [letter.message.payload for letter in there.table.dead_letters()] == [b"first"]
        write.commit()
        assert [letter.id for letter in there.table.dead_letters()] == [again.key[-layout.SEQUENCE_BYTES :].hex()]
        assert there.table.dead_messages == 1
