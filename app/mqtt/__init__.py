"""The MQTT side: receiving from the broker, and acknowledging to it.

`source` is the service, its thread and the stop sequence; `client` the paho subclass that reads in bulk; `transfer`
watches whether bytes move.

How a connection is made: `connection` up to CONNECT, `opening` its socket, `race` which address of a name is taken.
What is said on it after CONNECT: `subscriber`, with `requests` for what is not answered yet, `granted` for what the
broker grants less, `packet_sizes` for how long a packet to it may be, `leaving` for a drain. How it ends:
`disconnecting` at the stop; else `endings` says why, and `forbidden` finds filters at which the broker closes it.

What comes: `control_packets` says what a broker may send besides PUBLISH, `admission` which messages are new.
`acknowledgements` has the unacknowledged messages, `properties` the MQTT 5 properties of a PUBLISH.
`large_packets` gathers a large one or reads past it, `undecodable` gets past one that cannot be decoded.

What outlives a connection: `session`, and `shared` the session in a group; `copies` says which copy of a message to
keep.
"""
