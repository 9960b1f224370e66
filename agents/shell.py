"""What all agents have in common: an error in one must not lose an item in silence."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from typing import TypeVar

from app.application import app

Item = TypeVar("Item")


async def for_each(stream: AsyncIterable[Item], act: Callable[[Item], Awaitable[None]]) -> None:
    """Do something with each item of an agent's stream, for ever.

    An agent that lets an exception out is started again without the item. Here it ends the worker instead: what was
    not dealt with is not acknowledged, and the broker sends it when the worker starts again. Nothing that came after it
    is dealt with either, as it would be in Kafka before it.
    """
    async for item in stream:
        if app.first_error is not None:
            continue
        try:
            await act(item)
        except Exception as error:  # noqa: BLE001, whatever it is, see above
            await app.fail(error)
