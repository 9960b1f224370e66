"""The headers of a record that only depend on QoS, RETAIN and DUP: the same tuples each time, wherever they are needed.

With ten thousand routes, or a million messages from the table, others would take memory and the processor's cache.
"""

from __future__ import annotations

import itertools

_QOS = (("mqtt-qos", b"0"), ("mqtt-qos", b"1"), ("mqtt-qos", b"2"))
_RETAIN = (("mqtt-retain", b"0"), ("mqtt-retain", b"1"))
_DUP = ((), (("mqtt-dup", b"1"),))

# By QoS, RETAIN and DUP.
CONSTANT_HEADERS: dict[tuple[int, int, int], tuple[tuple[str, bytes], ...]] = {
    (qos, retain, dup): (_QOS[qos], _RETAIN[retain], *_DUP[dup])
    for qos, retain, dup in itertools.product(range(3), range(2), range(2))
}
