"""The table of undelivered messages.

`undelivered` is the table, `write` how it changes, `store` its RocksDB, `layout` what is in it. `opening` is how a
start gets hold of the database, with `ballast` for a full disk and `salvage` for damaged files; `damage` is what was
lost.
"""
