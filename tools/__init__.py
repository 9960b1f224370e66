"""Programs for whoever works on the project; no part of the bridge, and none of its two test clients.

- `path`: follows one message through the code of the bridge (`make path`).
- `tracer`: the worker of the bridge, with each call of a function of the project written down.
- `calls`: says which of these calls belong to the message.
- `documents`: writes the tables of the documents that are made from the code.
- `demo`, `demo_report`: `make run`, the bridge between two brokers, and what arrived.
- `broker`: one broker to try the bridge with; `brokers`: those that can be started, for demo, tests and benchmarks.
- `worker`: the bridge as a process.
- `dependencies`, `release`, `offline`, `image_archive`, `image_packages`: what a release is made of, and how.
"""
