"""The four channels between the rooms; each has one agent, in `agents`.

A channel without a subscriber drops what it is sent, so agents start before the MQTT source. The channels are not
bounded here: what may be in them is bounded by `Flow` (what memory alone holds) and by the lanes (what is in flight).
"""

from app.application import app

# Batches from the MQTT source, to the router.
inbound = app.channel(maxsize=0)
# Requests to the keeper, mostly messages to store.
undelivered = app.channel(maxsize=0)
# Lists of stored messages that Kafka has confirmed, to the keeper, to be removed from the table.
delivered = app.channel(maxsize=0)
# Entries read from the table, to the replayer, in the order of their lane.
restored = app.channel(maxsize=0)
