"""The remover: removes from the table what Kafka has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.application import app
from app.channels import delivered

if TYPE_CHECKING:
    from app.storage.writer import TableWriter


def register(table_writer: TableWriter) -> None:
    """Start the agent."""

    @app.agent(delivered, name="remover")
    async def remove(lists):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, faust passes the stream
        """Remove from the table what Kafka has."""
        async for messages in lists:
            if app.first_error is not None:
                continue
            try:
                await table_writer.remove(messages)
            except Exception as error:  # noqa: BLE001, see the header of `agents`
                await app.fail(error)
