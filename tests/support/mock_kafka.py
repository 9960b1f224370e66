"""librdkafka's own mock of a Kafka cluster: it answers a Produce with any code that there is, which no real one does.

Real is everything on our side: librdkafka itself decides what it repeats, reports, or dies of. The mock is part of the
library that confluent-kafka brings, and is reached through its C functions.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import confluent_kafka
from typing_extensions import Self

PRODUCE_REQUEST = 0  # its number in Kafka's protocol
_PRODUCER_CLIENT = 0


def _library() -> ctypes.CDLL:
    """Return the library that confluent-kafka has loaded already."""
    (path,) = (Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs").glob("librdkafka*.so*")
    library = ctypes.CDLL(str(path))
    for name in ("rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return library


class MockKafka:
    """One mocked broker."""

    def __init__(self) -> None:
        self._library = library = _library()
        problem = ctypes.create_string_buffer(512)
        client = library.rd_kafka_new(_PRODUCER_CLIENT, None, problem, len(problem))
        assert client, problem.value
        self._client = ctypes.c_void_p(client)
        self._cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(self._client, 1))
        self.bootstrap = library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()

    def create_topics(self, topics: Iterable[str]) -> None:
        """Create topics with one partition each."""

        def create(topic: str) -> int:
            return self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), 1, 1)

        self._at_once(create, topics)

    def answer(self, codes: Mapping[str, int], times: int = 1) -> None:
        """Answer the next Produce requests for topics with a code each."""

        def push(topic: str) -> int:
            return self._library.rd_kafka_mock_partition_push_request_errors(
                self._cluster, ctypes.c_char_p(topic.encode()), ctypes.c_int32(0), ctypes.c_int16(PRODUCE_REQUEST),
                ctypes.c_size_t(1), ctypes.c_int(codes[topic]),
            )  # fmt: skip

        for _ in range(times):
            self._at_once(push, codes)

    @staticmethod
    def _at_once(act: Callable[[str], int], topics: Iterable[str]) -> None:
        """Do something for each topic, side by side, as the mock takes its time for each."""
        with ThreadPoolExecutor(64) as threads:
            assert not any(threads.map(act, topics))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)
