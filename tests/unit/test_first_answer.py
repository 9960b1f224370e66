"""MQTT is connected once Kafka has said what its topics take, or nobody is there to say it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from app.kafka.cluster import Cluster
from app.kafka.topics import Topics
from app.lifecycle import start
from app.lifecycle.start import FirstAnswer


def starting(cluster: Cluster, topics: Topics) -> asyncio.Task:
    """Return the start of the service, which waits."""
    service = FirstAnswer(SimpleNamespace(producer=SimpleNamespace(cluster=cluster), topics=topics))
    return asyncio.ensure_future(service.on_start())


@pytest.mark.parametrize("is_there", [True, False])
def test_it_waits_until_kafka_has_answered_or_librdkafka_says_that_none_is_there(is_there):
    async def run() -> None:
        cluster, topics = Cluster(), Topics()
        waits = starting(cluster, topics)
        await asyncio.sleep(3 * start.LOOK_SECONDS)
        assert not waits.done()
        if is_there:
            topics.is_asked.set()
        else:
            cluster.is_judged = True
        await asyncio.wait_for(waits, 60)

    asyncio.run(run())


def test_it_does_not_wait_for_ever_where_nobody_says_anything(monkeypatch):
    monkeypatch.setattr(start, "WAIT_SECONDS", 0.05)

    async def run() -> None:
        await asyncio.wait_for(starting(Cluster(), Topics()), 60)

    asyncio.run(run())
