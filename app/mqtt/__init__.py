"""The MQTT side: receiving from the broker, and acknowledging to it.

The path of a PUBLISH, and back:

    broker -> client (socket) -> reader (packets, messages) -> hand_over -> channel `inbound` -> ...
                                   | in doubt: admission
    broker <- client (socket) <- window (what is acknowledged, in the order of receipt) <- safe: Kafka or disk has it

What each module owns:

- The service: `source` start and the stop sequence; `thread` the MQTT thread, one connection after the other;
  `hand_over` what passes between that thread and the event loop, both ways.
- Making a connection: `connection` up to CONNECT, `opening` its socket, `race` which address of a name is used.
- The bytes of a connection: `client` reads and writes the socket, `reader` makes messages, `admission` says which are
  new, `window` has those that are not acknowledged. `control_packets` says what a broker may send besides PUBLISH,
  `properties` decodes those of a PUBLISH, `large_packets` gathers a large one or reads past it, `undecodable` gets past
  one that cannot be decoded, `transfer` watches whether bytes move.
- What is said on a connection after CONNECT: `conversation` from CONNACK to the end, `subscriber` SUBSCRIBE and
  UNSUBSCRIBE, `requests` what is not answered yet, `granted` what the broker grants less, `packet_sizes` how long a
  packet to it may be, `naming` how filters are named in sentences, `unsubscribe_handshake` the steps of a drain.
- The end of a connection: `disconnecting` at the stop; else `endings` says why, and `forbidden` finds filters at which
  the broker closes it.
- What outlives a connection: `session`, which consists of `subscriptions` (which filters the broker has), `generations`
  (how old they are), `copies` (which copy of a message to keep), `qos2` (messages that await PUBREL), `unsubscribing`
  (how far a drain is) and `standing` (what the pages say of it). `shared` is what is other in a group.

Imports point one way, types included: what outlives a connection knows nothing of connections, a connection nothing of
the thread, the thread nothing of the service.
"""
