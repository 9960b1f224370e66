"""What the table keeps besides messages: the state of the MQTT session, and single values for the next start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.core.requests import ForgetIdentifiers, ForgetLanes, Remember, RememberSubscriptions
from tables import layout

if TYPE_CHECKING:
    from app.storage.syncs import Syncs
    from tables.undelivered import UndeliveredTable


def write_metadata(
    table: UndeliveredTable,
    syncs: Syncs,
    request: ForgetIdentifiers | RememberSubscriptions | Remember | ForgetLanes,
) -> None:
    """Write what a request asks for; who asked is answered after the sync."""
    write = table.begin()
    if isinstance(request, Remember | ForgetLanes) and table.check_disk_full():
        return  # a failed write would end the worker; the value can be learned again, and what is kept is small
    if isinstance(request, Remember):
        write.set_meta(request.name, request.value)
    elif isinstance(request, ForgetLanes):
        for topic in request.topics:
            if not any(table.data.with_prefix(layout.undelivered_prefix(topic))):
                write.forget_head(topic)
    elif isinstance(request, RememberSubscriptions):
        write.set_meta("filters", request.filters)
        write.set_meta("generations", request.generations)
        write.set_meta("left", request.left)
        write.set_meta("granted_at", request.granted_at)
        write.set_meta("asked_qos", request.asked_qos)
        write.set_meta("left_out", request.left_out)
        syncs.add_request(request)
    else:
        identifiers = request.packet_identifiers
        write.forget_packet_identifiers(table.metadata.packet_identifiers() if identifiers is None else identifiers)
        syncs.add_request(request)
    write.commit()
    syncs.soon()
