"""The MQTT side: receiving from the broker, and acknowledging to it.

`source` is the service, its thread and the stop sequence; `client` the paho subclass that reads in bulk. Of one
connection, `connection` is how it is made, `subscriber` what is said on it after CONNECT, `leaving` what a drain says
there, and `acknowledgements` its unacknowledged messages. `session` is what outlives a connection, `shared` the session
in a group. `properties` are the MQTT 5 properties of a PUBLISH; `large_packets` reads past what is too large.
"""
