"""How damaged files are repaired, and how it is found what was lost.

- `salvage`: saves what can be read, into new files.
- `reading`: reads a damaged file around its holes; `large_values` where RocksDB itself cannot.
- `start_check`: reads the figures of the table at the start, and checks them.
- `damage`: counts what was lost, by the numbers of the writes and the synced mark.
"""
