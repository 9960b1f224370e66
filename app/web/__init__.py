"""The web server: Faust's routes on aiohttp, and the protection of a port that strangers can reach.

`listening` binds the addresses. `accepting` accepts connections and has all their limits: how many there may be, from
the first moment to the close of the socket, how long one may last, how much may wait to be read. `connection` is one
connection, as aiohttp reads and answers it. `asking` decides which requests are allowed: under which host names, and
from which other pages. `answers` has the headers of every answer, and the answers to failures. `refusals` counts and
logs what is refused. `server` puts it together.

Of what was received, only a host name is logged, escaped.
"""
