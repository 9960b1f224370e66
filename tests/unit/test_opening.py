"""Opening the connection to the MQTT broker: names, addresses that do not answer, handshakes that never end; no Kafka.

Silent addresses are real: 127.0.1.1 and on, whose listeners have a full queue, so that the kernel answers nobody. Only
the name is none of the machine's: what it stands for is given in place of the resolver's answer.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import statistics
import threading
import time

import pytest

from app.mqtt import race
from app.mqtt.opening import Opening
from app.mqtt.race import Attempt, first_to_answer, in_turn
from tools.brokers.process import HOST, free_port

NAME = "broker.example"
# Many times what the slowest takes, and half of what sixteen silent addresses take one after the other.
PATIENCE_SECONDS = 40.0


class StoppedError(Exception):
    """The worker stops."""


@contextlib.contextmanager
def silent(addresses, port):
    """Have addresses of this machine answer nobody on a port."""
    with contextlib.ExitStack() as stack:
        for address in addresses:
            listener = stack.enter_context(socket.socket())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
            listener.listen(0)
            for _ in range(3):  # what fills the queue
                client = stack.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex((address, port))
        yield


def standing_for(monkeypatch, addresses, answers=None):
    """Have the name stand for addresses, once `answers` is set if it is given. Returns the times of the lookups."""
    looked_up = []
    real = socket.getaddrinfo

    def answer(host, port, *arguments, **options):
        if options.get("flags"):
            return real(host, port, *arguments, **options)
        looked_up.append(time.monotonic())
        if answers is not None:
            answers.wait(60)
        kinds = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(kinds[":" in each], socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return looked_up


def test_one_good_address_among_silent_ones_is_reached(monkeypatch):
    """Liveness and arrival: 16 silent addresses took 80 seconds, in which the thread did not move."""
    assert 16 * race.STAGGER_SECONDS < PATIENCE_SECONDS / 4, "as long as it takes when nothing is shortened"
    monkeypatch.setattr(race, "STAGGER_SECONDS", 0.02)
    monkeypatch.setattr(race, "BEAT_SECONDS", 0.01)
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        silent_ones = [f"127.0.1.{number}" for number in range(1, 17)]
        standing_for(monkeypatch, [*silent_ones, HOST])
        beats = []
        with silent(silent_ones, port):
            attempt = Attempt(PATIENCE_SECONDS, lambda: beats.append(time.monotonic()))
            with Opening(NAME, port).open(attempt, None) as connection:
                assert connection.getpeername() == (HOST, port)
        # Most of them, as the machine itself may stand still for once.
        assert statistics.median(after - before for before, after in itertools.pairwise(beats)) < 1


def test_a_broker_of_which_ipv6_is_dead_is_reached_over_ipv4():
    """RFC 8305: the families take turns, so one that is dead altogether costs a moment."""
    v6 = [(socket.AF_INET6, (f"::{number}", 1)) for number in range(3)]
    v4 = [(socket.AF_INET, (f"10.0.0.{number}", 1)) for number in range(2)]
    assert in_turn([*v6, *v4]) == [v6[0], v4[0], v6[1], v4[1], v6[2]]


def test_an_address_that_refuses_is_passed_over_and_all_that_refuse_are_an_error(monkeypatch):
    """P7: with the reason, and how many were tried."""
    standing_for(monkeypatch, ["127.0.1.1", HOST])
    with socket.create_server((HOST, 0)) as listener:
        Opening(NAME, listener.getsockname()[1]).open(Attempt(PATIENCE_SECONDS), None).close()
    with socket.socket() as nobody, pytest.raises(OSError, match=r"Connection refused \(2 addresses\)"):
        nobody.bind((HOST, 0))
        Opening(NAME, nobody.getsockname()[1]).open(Attempt(PATIENCE_SECONDS), None)


def test_silent_addresses_are_named_when_the_deadline_is_over():
    """The log names what does not answer."""
    port = free_port()
    addresses = [f"127.0.1.{number}" for number in range(1, 5)]
    attempt = Attempt(PATIENCE_SECONDS)
    attempt.until = time.monotonic() + 0.2
    with silent(addresses, port), pytest.raises(TimeoutError) as raised:
        first_to_answer([(socket.AF_INET, (address, port)) for address in addresses], attempt)
    assert str(raised.value) == "no answer from 127.0.1.1, 127.0.1.2, 127.0.1.3 and 1 more within 40 s"


def test_a_lookup_that_takes_longer_than_an_attempt_is_waited_for_by_the_next_one(monkeypatch):
    """There is one at a time, however long the resolver is silent, and its answer is not thrown away."""
    with socket.create_server((HOST, 0)) as listener:
        port, answers = listener.getsockname()[1], threading.Event()
        looked_up = standing_for(monkeypatch, [HOST], answers)
        broker = Opening(NAME, port)
        for _ in range(2):
            with pytest.raises(TimeoutError, match=f"no answer to the lookup of the name {NAME}"):
                broker.open(Attempt(0.3), None)
        answers.set()
        broker.open(Attempt(PATIENCE_SECONDS), None).close()
        assert len(looked_up) == 1
        broker.open(Attempt(PATIENCE_SECONDS), None).close()
        assert len(looked_up) == 2, "each connection looks the name up"


def test_a_stop_ends_the_attempt_whatever_it_waits_for(monkeypatch):
    """P10: a lookup, an address, a handshake."""
    port = free_port()
    context = ssl.create_default_context()
    stopped, answers = threading.Event(), threading.Event()
    standing_for(monkeypatch, ["127.0.1.1"], answers)

    def beat():
        if stopped.is_set():
            raise StoppedError

    with silent(["127.0.1.1"], port), socket.create_server((HOST, 0)) as mute:
        for host, where, tls in ((NAME, port, None), ("127.0.1.1", port, None), (HOST, mute.getsockname()[1], context)):
            stopped.clear()
            timer = threading.Timer(0.15, stopped.set)
            timer.start()
            began = time.monotonic()
            with pytest.raises(StoppedError):  # it would wait for ever, but for the deadline
                Opening(host, where).open(Attempt(PATIENCE_SECONDS, beat), tls)
            assert time.monotonic() - began < PATIENCE_SECONDS / 2
        answers.set()


@pytest.mark.parametrize("trickle", [False, True])
def test_a_tls_handshake_that_never_ends_ends_with_the_attempt(trickle):
    """Whether it is silent, or sends a byte of a long record now and then."""
    attempt = Attempt(PATIENCE_SECONDS)
    with socket.create_server((HOST, 0)) as listener:

        def answer():
            with contextlib.suppress(OSError), listener.accept()[0] as connection:
                attempt.until = time.monotonic() + 0.3  # now that it is connected; else that might take too long
                if not trickle:
                    while connection.recv(65536):
                        pass
                    return
                connection.sendall(b"\x16\x03\x03\x40\x00")
                while True:
                    connection.sendall(b"\x00")
                    time.sleep(0.05)

        threading.Thread(target=answer, daemon=True).start()
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=f"no TLS handshake within {PATIENCE_SECONDS:.0f} s"):
            Opening(HOST, listener.getsockname()[1]).open(attempt, ssl.create_default_context())
        assert time.monotonic() - began < PATIENCE_SECONDS / 2


def test_an_address_whose_connection_came_to_nothing_is_tried_last(monkeypatch):
    """A proxy that accepts and is silent does not hide the broker behind the other address."""
    with socket.create_server((HOST, 0)) as good:
        port = good.getsockname()[1]
        with socket.create_server(("127.0.1.1", port)):
            standing_for(monkeypatch, ["127.0.1.1", HOST])
            broker = Opening(NAME, port)
            peers = []
            for accepted in (False, True, True):
                with broker.open(Attempt(PATIENCE_SECONDS), None) as connection:
                    peers.append(connection.getpeername()[0])
                if accepted:
                    broker.was_accepted()
            assert peers == ["127.0.1.1", HOST, HOST]
