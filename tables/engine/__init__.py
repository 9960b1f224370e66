"""RocksDB under the table.

- `opening`: how the database is opened.
- `store`: the database, as the table uses it.
- `ballast`: a file that is given up when the disk is full.
- `faust_mapping`: how Faust sees the database.
"""
