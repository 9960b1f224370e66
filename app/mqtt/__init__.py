"""The MQTT side: receiving from the broker, and acknowledging to it.

The path of a PUBLISH, and back:

    broker -> client (socket) -> reader (packets, messages) -> hand_over -> channel `inbound` -> ...
                                   | in doubt: admission
    broker <- client (socket) <- window (what is acknowledged, in the order of receipt) <- safe: Kafka or disk has it

What each module owns:

- `source` the service: start, and the stop sequence. `thread` the MQTT thread: one connection after the other.
  `hand_over` what passes between that thread and the event loop, both ways.
- One connection, making it: `connection` up to CONNECT, `opening` its socket, `race` which address of a name is used.
- One connection, its bytes: `client` reads and writes the socket, `reader` makes messages, `admission` says which are
  new, `window` has those that are not acknowledged. `control_packets` says what a broker may send besides PUBLISH,
  `properties` decodes those of a PUBLISH, `large_packets` gathers a large one or reads past it, `undecodable` gets past
  one that cannot be decoded, `transfer` watches whether bytes move.
- One connection, what is said on it after CONNECT: `subscriber`, with `requests` for what is not answered yet,
  `granted` for what the broker grants less, `packet_sizes` for how long a packet to it may be, `leaving` for a drain.
- One connection, its end: `disconnecting` at the stop; else `endings` says why, and `forbidden` finds filters at which
  the broker closes it.
- What outlives a connection: `session`, and `shared` the session in a group; `copies` says which copy of a message to
  keep.
"""
