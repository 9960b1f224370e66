"""Inputs that are trains of packets: changed packet by packet, so that most lengths stay right."""

from __future__ import annotations

import random

from tests.support.scripted_broker import packet_of, whole_packet

OTHERS = (
    b"\xd0\0", b"\x62\2\0\1", b"\x90\3\0\1\1", b"\x90\4\0\1\0\1", b"\xb0\2\0\1", b"\xb0\4\0\1\0\0", b"\xe0\2\x8b\0",
    b"\x30\4\0\1ax", b"\x32\6\0\1a\0\1x", b"\x34\7\0\1a\0\1\0x", b"\x3c\7\0\1a\0\1\0x",
    b"\x32\x0b\0\1a\0\2\5\x26\0\0\0\0",
)  # fmt: skip


def packets_in(stream):
    """Split a stream into packets; the last may be incomplete."""
    packets = []
    while stream and (length := whole_packet(stream)) is not None:
        packets.append(stream[:length])
        stream = stream[length:]
    return [*packets, stream] if stream else packets


def with_body(packet, body):
    """Return a packet with another body, and the length of that."""
    return packet_of(packet[0] if packet else 0x30, body)


def body_of(packet):
    """Return what follows the length."""
    start = 1
    while start < min(len(packet), 5) and packet[start] & 0x80:
        start += 1
    return packet[start + 1 :]


def changed(data, mutate, seed):
    """Return another input; `mutate` changes bytes anyhow."""
    choose = random.Random(seed)
    if len(data) < 3 or choose.random() < 0.3:
        return mutate(data)
    packets = packets_in(data[2:])
    place = choose.randrange(len(packets))
    way = choose.randrange(5)
    if way == 0:
        packets.insert(place, choose.choice(OTHERS))
    elif way == 1:
        packets.insert(choose.randrange(len(packets) + 1), packets[place])
    elif way == 2:
        del packets[place]
    elif way == 3:
        other = choose.randrange(len(packets))
        packets[place], packets[other] = packets[other], packets[place]
    else:
        packets[place] = with_body(packets[place], mutate(body_of(packets[place])))
    options = bytes([choose.randrange(32), choose.randrange(256)]) if choose.random() < 0.2 else data[:2]
    return options + b"".join(packets)
