"""The Faust agents: thin shells over plain functions. `router` routes, `keeper` stores, `replayer` feeds what waits.

`dead_letters` is a part of the keeper; `recovery` what a start takes up and a stop leaves.
"""
