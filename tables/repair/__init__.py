"""What is done with damaged files, and how it is known what was lost.

- `salvage`: saves what can be read, into new files.
- `reading`: reads a damaged file around its holes; `large_values` where RocksDB itself cannot.
- `start_check`: reads the figures of the table at the start, and sees whether they are true.
- `damage`: counts what was lost, by the numbers of the writes and the synced mark.
"""
