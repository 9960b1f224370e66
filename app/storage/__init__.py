"""What is around the table of undelivered messages (`tables`): who writes it, and who reads it.

- `writer`: the only writer of the table.
- `syncs`: brings what was written to the disk, and answers what that made safe.
- `metadata`: what is written besides messages.
- `replay_reader`: reads what waits in the table, lane by lane, in order.
- `dead_letters`: messages that cannot go to Kafka as they are, set aside.
- `dead_letter_commands`: what an operator does with them; `retry_all`: sending all of them once more, in parts.
- `mistakes`: dead letters of which there may be floods.
- `oversize`: messages that are larger than the whole table.
- `room`: what is dropped from a full table with `drop_oldest`.
- `route_limits`: what is dropped of a route that takes more of the table than it may.
- `oldest_first`: how both find the oldest messages of many lanes, and remove them.
- `fullness`: what is logged of a full table and a full disk.
"""
