"""The table of undelivered messages: `undelivered` is the table, `store` its RocksDB, `layout` what is in it."""
