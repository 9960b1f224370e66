"""The Faust agents: thin shells over plain functions. `router` routes, `keeper` stores, `replayer` feeds what waits.

`shell` is what they have in common, `dead_letters` a part of the keeper; `recovery` is what a start takes up and a stop
leaves.
"""
