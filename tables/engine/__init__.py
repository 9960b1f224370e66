"""RocksDB under the table.

- `opening`: how the database is opened.
- `store`: the database, as the table uses it.
- `seeker`: a place in it, for entries that do not follow each other.
- `ballast`: a file that is given up when the disk is full.
- `faust_mapping`: how Faust sees the database.
"""
