"""The Faust agents: thin shells over plain functions. `router` routes, `keeper` stores, `replayer` feeds what waits.

`shell` is what they have in common; `kinds` and `left_out` are parts of the router; `dead_letters`, `mistakes` and
`fullness` are parts of the keeper. `oversize` is asked by both about messages larger than the table. `recovery` is what
a start takes up and a stop leaves, `drain` how a worker hands everything on before it goes.
"""
