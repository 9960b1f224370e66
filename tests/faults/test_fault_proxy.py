"""The fault proxy does what the network's tests rely on: it harms what it is told to, when it is told, and no more."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest
from confluent_kafka import Producer

from tests.support.fault_proxy import FaultProxy
from tests.support.frame_faults import answer_with_error, cut_after, cut_before, cut_inside, drop, flip_byte
from tests.support.oracle import read, wait_until
from tests.support.proxied_protocols import METADATA, PRODUCE, TO_CLIENT, TO_SERVER, produce_errors
from tests.support.scripted_broker import (
    CONNACK,
    CONNECT,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    ScriptedBroker,
    packet_of,
    publish_packet,
    whole_packet,
)

CONNECT_PACKET = packet_of(0x10, b"\x00\x04MQTT\x04\x02\x00\x00\x00\x00")
NOT_ENOUGH_REPLICAS = 19


def puback(identifier):
    return packet_of(PUBACK << 4, identifier.to_bytes(2, "big"))


@contextlib.contextmanager
def broker_and_proxy():
    with ScriptedBroker() as broker, FaultProxy(broker.port) as proxy:
        yield broker, proxy


@contextlib.contextmanager
def client_of(proxy):
    """Connect to the broker behind a proxy, and read CONNACK."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
        client.sendall(CONNECT_PACKET)
        assert client.recv(4) == b"\x20\x02\x00\x00"
        yield client


def read_packets(client, count):
    """Return the next packets of a connection."""
    data, packets = b"", []
    while len(packets) < count:
        while (stop := whole_packet(data)) is None:
            part = client.recv(65536)
            assert part, "the connection ended"
            data += part
        packets.append(data[:stop])
        data = data[stop:]
    assert not data
    return packets


def rest_of(client):
    """Return what comes until the connection ends, and whether it was reset."""
    data = b""
    try:
        while part := client.recv(65536):
            data += part
    except ConnectionResetError:
        return data, True
    return data, False


def test_everything_passes_unchanged_and_is_recorded():
    """Types, identifiers, directions and the order; a packet in pieces, and many in one."""
    publishes = [
        publish_packet("a/b", bytes(size), qos, size + 1, version=4) for size in (0, 200, 50_000) for qos in (1, 2)
    ]
    with broker_and_proxy() as (broker, proxy), client_of(proxy) as client:
        train = b"".join([puback(7), puback(300), packet_of(PUBCOMP << 4, b"\x00\x09")])
        client.sendall(train[:5])
        broker.wait_for(PUBACK, 1)
        client.sendall(train[5:])
        broker.wait_for(PUBCOMP, 1)
        assert [packet.data for packet in broker.packets] == [CONNECT_PACKET, train[:4], train[4:8], train[8:]]
        broker.send(*publishes, publish_packet("a/b", b"QoS 0", version=4))
        assert read_packets(client, 7)[:6] == publishes
        wait_until(lambda: all(frame.forwarded for frame in proxy.frames), "the notes of what was forwarded")
    assert [(frame.kind, frame.identifier) for frame in proxy.frames if frame.direction is TO_SERVER] == [
        (CONNECT, 0), (PUBACK, 7), (PUBACK, 300), (PUBCOMP, 9),
    ]  # fmt: skip
    assert [(frame.kind, frame.identifier) for frame in proxy.frames if frame.direction is TO_CLIENT] == [
        (CONNACK, 0), *((PUBLISH, size + 1) for size in (0, 0, 200, 200, 50_000, 50_000)), (PUBLISH, 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "arrived", "reset"),
    [(cut_before, b"", True), (cut_inside, puback(2)[:2], True), (cut_after, puback(2), False)],
)
def test_the_connection_is_cut_at_the_chosen_packet(fault, arrived, reset):
    """Before, inside or after the second PUBACK; the next connection works, as the rule is used up."""
    with socket.create_server(("127.0.0.1", 0)) as listener, FaultProxy(listener.getsockname()[1]) as proxy:
        rule = proxy.on(TO_SERVER, PUBACK, fault, first=2)
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
            server = listener.accept()[0]
            with server:
                server.settimeout(10)
                client.sendall(CONNECT_PACKET + puback(1) + puback(2) + puback(3))
                data, was_reset = rest_of(server)
                assert (data, was_reset) == (CONNECT_PACKET + puback(1) + arrived, reset)
                assert rest_of(client) == (b"", reset)
        assert rule.acted == 1
        assert [frame.forwarded for frame in proxy.seen(TO_SERVER, PUBACK)] == [True, fault is cut_after]
        with socket.create_connection(("127.0.0.1", proxy.port)) as client, listener.accept()[0] as server:
            client.sendall(puback(1) + puback(2))
            server.settimeout(10)
            assert b"".join(server.recv(1) for _ in range(8)) == puback(1) + puback(2)


def test_a_function_is_called_exactly_after_the_chosen_packet():
    """The broker has three PUBACKs and no fourth, though the client sent ten at once."""
    known = []
    with broker_and_proxy() as (broker, proxy), client_of(proxy) as client:

        def look(frame):
            broker.wait_for(PUBACK, 3)
            time.sleep(0.1)  # for a fourth, if it was sent
            known.append((frame.identifier, broker.identifiers(PUBACK)))

        proxy.on(TO_SERVER, PUBACK, first=3, then=look)
        client.sendall(b"".join(puback(number) for number in range(1, 11)))
        broker.wait_for(PUBACK, 10)
    assert known == [(3, [1, 2, 3])]


def test_packets_are_dropped_and_changed_and_the_connection_lives():
    """PUBACKs 2 and 3 vanish; of the first PUBLISH one byte is another."""
    with broker_and_proxy() as (broker, proxy), client_of(proxy) as client:
        proxy.on(TO_SERVER, PUBACK, drop, first=2, times=2)
        client.sendall(b"".join(puback(number) for number in range(1, 6)))
        broker.wait_for(PUBACK, 3)
        assert broker.identifiers(PUBACK) == [1, 4, 5]
        proxy.on(TO_CLIENT, PUBLISH, flip_byte(-1))
        broker.send(publish_packet("a", b"12", version=4), publish_packet("a", b"12", version=4))
        assert [packet[-2:] for packet in read_packets(client, 2)] == [b"1\xcd", b"12"]


def test_what_is_held_arrives_later_in_order():
    """As TCP does it after a while without packets; the connection stays."""
    with broker_and_proxy() as (broker, proxy), client_of(proxy) as client:
        proxy.hold(TO_SERVER)
        client.sendall(puback(1))
        broker.publish("a", b"the other way is open")
        read_packets(client, 1)
        client.sendall(puback(2))
        time.sleep(0.1)  # for the PUBACKs, if they were sent
        assert not broker.received(PUBACK)
        proxy.pass_everything()
        broker.wait_for(PUBACK, 2)
        assert broker.identifiers(PUBACK) == [1, 2]
        assert broker.connections == 1


def test_what_is_swallowed_is_gone_and_its_connection_is_cut_afterwards():
    """Half-open: nobody hears anything, not even the end of the other one; a new connection gets no answer."""
    with broker_and_proxy() as (broker, proxy):
        with client_of(proxy) as client, contextlib.ExitStack() as stack:
            proxy.swallow()
            client.sendall(puback(1))
            wait_until(lambda: proxy.seen(TO_SERVER, PUBACK), "the PUBACK at the proxy")
            # Not before: the scripted broker ends its connection when another one is made.
            second = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port)))
            second.sendall(CONNECT_PACKET)
            wait_until(lambda: len(proxy.seen(TO_SERVER, CONNECT)) == 2, "the CONNECT at the proxy")
            broker.close_connection()
            client.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.recv(1)
            assert not broker.received(PUBACK)
            assert not proxy.seen(TO_SERVER, PUBACK)[0].forwarded
            proxy.pass_everything()
            client.settimeout(10)
            assert rest_of(client) == (b"", True)
        with client_of(proxy) as client:
            client.sendall(puback(2))
            broker.wait_for(PUBACK)
            assert broker.identifiers(PUBACK) == [2]


def test_one_direction_is_swallowed_alone():
    """The client's PUBACK vanishes, the broker's PUBLISH arrives."""
    with broker_and_proxy() as (broker, proxy), client_of(proxy) as client:
        proxy.swallow(TO_SERVER)
        client.sendall(puback(1))
        broker.publish("a", b"payload")
        assert len(read_packets(client, 1)) == 1
        wait_until(lambda: proxy.seen(TO_SERVER, PUBACK), "the PUBACK at the proxy")
        time.sleep(0.1)  # for the PUBACK, if it was sent
        assert not broker.received(PUBACK)


def test_slices_and_delays_change_the_pace_only():
    """Three bytes at a time, 5 ms each: slow, and unharmed."""
    packet = publish_packet("a", bytes(range(200)), version=4)
    with broker_and_proxy() as (broker, proxy), client_of(proxy) as client:
        proxy.slow(slice_bytes=3, delay_seconds=0.005)
        began = time.monotonic()
        broker.send(packet)
        assert read_packets(client, 1) == [packet]
        assert time.monotonic() - began >= len(packet) // 3 * 0.005


def test_what_is_late_comes_in_order_all_of_it_and_not_one_after_the_other():
    """Ten packets that are half a second late each come within little more than half a second."""
    packets = [publish_packet("a", bytes([number])) for number in range(10)]
    with broker_and_proxy() as (broker, proxy), client_of(proxy) as client:
        proxy.late(0.5, TO_CLIENT)
        began = time.monotonic()
        for packet in packets:
            broker.send(packet)
            time.sleep(0.03)
        assert read_packets(client, len(packets)) == packets
        assert 0.5 <= time.monotonic() - began < 4.5


def test_a_refusing_network_resets_old_and_new_connections():
    """And is as good as new afterwards."""
    with broker_and_proxy() as (_, proxy):
        with client_of(proxy) as client:
            proxy.refuse()
            assert rest_of(client) == (b"", True)
        # The reset may come while it connects or afterwards.
        with pytest.raises(ConnectionResetError), socket.create_connection(("127.0.0.1", proxy.port), 10) as client:
            client.recv(1)
        proxy.pass_everything()
        with client_of(proxy):
            pass


# ---- Kafka


def deliver(proxy, topic, values):
    """Produce values one after the other, each in a request of its own; return what was reported of each."""
    reports = []
    producer = Producer({"bootstrap.servers": proxy.address, "enable.idempotence": True, "log_level": 0})
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, message: reports.append(error or message.offset()))
        producer.flush(30)
    return reports


def test_a_kafka_client_stays_behind_the_proxy_and_its_answers_are_known(proxied_kafka, names):
    """Bootstrap and the advertised address are both the proxy's; a response has the api key of its request."""
    kafka, proxy = proxied_kafka
    kafka.create_topic(names.kafka())
    assert deliver(proxy, names.kafka(), [b"1", b"2"]) == [0, 1]
    requests, answers = proxy.seen(TO_SERVER, PRODUCE), proxy.seen(TO_CLIENT, PRODUCE)
    assert [frame.identifier for frame in requests] == [frame.identifier for frame in answers]
    assert [produce_errors(frame) for frame in answers] == [[0], [0]]
    assert proxy.seen(TO_CLIENT, METADATA)


def test_the_error_of_a_produce_response_is_another_one(proxied_kafka, names):
    """The client believes it and sends the record again; Kafka has it already and says so."""
    kafka, proxy = proxied_kafka
    kafka.create_topic(names.kafka())
    rule = proxy.on(TO_CLIENT, PRODUCE, answer_with_error(NOT_ENOUGH_REPLICAS), first=2)
    assert deliver(proxy, names.kafka(), [b"1", b"2", b"3"]) == [0, 1, 2]
    assert rule.acted == 1
    assert len(proxy.seen(TO_SERVER, PRODUCE)) == 4
    assert [record.value for record in read(kafka.bootstrap, [names.kafka()], 3).records] == [b"1", b"2", b"3"]


def test_a_produce_response_is_lost_after_kafka_acted(proxied_kafka, names):
    """The record is in Kafka before the connection is cut; it is sent again and is there once."""
    kafka, proxy = proxied_kafka
    kafka.create_topic(names.kafka())
    rule = proxy.on(TO_CLIENT, PRODUCE, cut_before, first=2)
    assert deliver(proxy, names.kafka(), [b"1", b"2", b"3"]) == [0, 1, 2]
    assert rule.acted == 1
    assert [record.value for record in read(kafka.bootstrap, [names.kafka()], 3).records] == [b"1", b"2", b"3"]
