"""The table of undelivered messages.

`undelivered` is the table, `write` how it changes, `store` its RocksDB, `layout` what is in it.
"""
