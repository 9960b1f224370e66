"""The table of undelivered messages.

`undelivered` is the table, `write` how it changes, `figures` what it counts, `metadata` the single values that it
remembers, `upkeep` what it does by itself now and then. `layout` is what is stored how, `shapes` what each value must
be, `entry` how a message becomes an entry and is made of it again, `pieces` how large payloads are written and read,
and `piece_keys` where they are. `dead_letter` is a dead letter as it is read from it, `dead_letters` how these are
found, deleted and counted anew. `sizes` is how large a disk should be.

The package `tables.engine` is the RocksDB below, and `tables.repair` what is done with damaged files.
"""
