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
  new, `window` has those that are not acknowledged. `control_packets` checks what a broker sends besides PUBLISH,
  `properties` decodes the properties of a PUBLISH, `property_names` names the headers that have them, `large_packets`
  collects a large packet or skips it, `undecodable` deals with packets that cannot be decoded, `transfer` watches
  whether bytes move.
- The packets of a connection after CONNECT: `conversation` from CONNACK to the end, `subscriber` SUBSCRIBE and
  UNSUBSCRIBE, `requests` those without an answer yet, `granted` what the broker grants less than was asked for,
  `packet_sizes` how long a packet to the broker may be, `naming` how filters are named in the log,
  `unsubscribe_handshake` the steps of a drain.
- The end of a connection: `disconnecting` at the stop; otherwise `endings` has the reason, and `forbidden` finds
  filters for which the broker closes the connection.
- What outlives a connection: `session`, which consists of `subscriptions` (which filters the broker has), `generations`
  (how old they are), `filter_orders` (other filters for a running worker), `copies` (which copy of a message to keep),
  `qos2` (messages that await PUBREL), `unsubscribing` (how far a drain is), `standing` (what the pages show of it) and
  `wanted_qos` (with which QoS to subscribe). `shared` has what differs with shared subscriptions.
- Beside the worker: `visit` signs in and subscribes as it does, for `app.check`.

Imports point one way, types included: what outlives a connection knows nothing of connections, a connection nothing of
the thread, the thread nothing of the service.
"""
