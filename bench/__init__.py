"""How fast Connector is, beside others: the programs, the traffic, what is measured, and the report.

`load` publishes, `bridges` starts Connector and `peers` the other programs, `usage` reads what their processes took,
`arrivals` looks at Kafka; `stage` has them together for one run, and `crossing` is the measurement that most share. A
scenario (one of `results.SCENARIOS`) says what runs there are; `results` keeps what they return, and `report` writes
docs/performance.md from it (`document`), with `tables` and a `picture`.
`python -m bench` runs all; its `--help` says what can be chosen. Two measurements are programs of their own:
`python -m bench.compare` has this checkout beside another one, and `python -m bench.profile` has clocks in the worker.

What a program took is its processor time (user and system, all threads and children), from just before the first
message is published until the last has arrived. Everything runs on one machine, one program after the other, with a new
mosquitto each time; figures are compared within a run only.
"""
