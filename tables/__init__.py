"""The table of undelivered messages.

`undelivered` is the table, `write` how it changes, `figures` what it counts, `metadata` the single values that it
remembers, `upkeep` what it does by itself now and then. `store` is its RocksDB, `faust_mapping` how Faust sees that,
`layout` what is in it, `shapes` what each value must be, `pieces` how large payloads are written and read, and
`piece_keys` where they are. `dead_letter` is a dead letter as it is read from it, `dead_letters` how these are found,
deleted and counted anew.

`opening` is how a start gets hold of the database, with `ballast` for a full disk and `salvage` for damaged files,
which `reading` reads, and `large_values` where RocksDB cannot. `start_check` reads the figures, and `damage` counts
what was lost, by the numbers of the writes and the synced mark.
"""
