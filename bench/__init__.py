"""How fast Connector is, beside others: the programs, the traffic, what is measured, and the report.

`load` publishes, `bridges` starts Connector or another program, `usage` reads what its processes took, `arrivals` looks
at Kafka. A scenario (`throughput`, `latency`, `outage`, `drain`, `growth`, `scale`) puts them together and returns rows;
`report` writes docs/performance.md from all of them. `python -m bench --help` runs them.

What a program took is its processor time (user and system, all threads and children), from just before the first
message is published until the last has arrived. Everything runs on one machine, one program after the other, with a new
mosquitto each time; figures are compared within a run only.
"""
