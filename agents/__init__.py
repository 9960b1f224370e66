"""The Faust agents: thin shells over plain functions. `router` routes, `keeper` stores, `replayer` feeds what waits."""
