"""The writer: passes the requests to the table writer, in the order in which they were made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.application import app
from app.channels import undelivered

if TYPE_CHECKING:
    from app.storage.writer import TableWriter


def register(table_writer: TableWriter) -> None:
    """Start the agent."""

    @app.agent(undelivered, name="writer")
    async def write(requests):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, faust passes the stream
        """Store what Kafka did not confirm in time, and dead letters."""
        async for request in requests:
            if app.first_error is not None:
                continue
            try:
                await table_writer.do(request)
            except Exception as error:  # noqa: BLE001, see the header of `agents`
                await app.fail(error)
