"""The web server: Faust's routes on aiohttp, with what a port that strangers can reach needs beside.

`listening` binds the addresses. `accepting` accepts connections, one room for all limits: how many there are, from
their first moment to the close of their socket, how long one may take, how much may wait to be read. `connection` is
one of them, as aiohttp reads and answers it. `asking` says who may ask: under which names, from which other pages.
`answers` has what every answer bears, and those of failures, `refusals` counts and says what is refused. `server` puts
it together.

Nothing of what was received is in the log, but a name of a host, escaped.
"""
