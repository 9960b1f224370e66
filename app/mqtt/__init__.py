"""The MQTT side: receiving from the broker, and acknowledging to it.

`source` is the service, its thread and the stop sequence; `connection` how a
connection is made and subscribed; `client` the paho subclass that reads in bulk; `session`
what outlives a connection; `acknowledgements` the unacknowledged messages of one connection; `properties` the MQTT 5
properties of a PUBLISH; `large_packets` what is read past as it is too large.
"""
