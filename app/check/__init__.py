"""`check`: says before a start, or beside a running worker, whether everything is there that the worker needs.

It connects as the worker does, with its settings and the same libraries, and changes nothing: the worker's session,
its shared group, its table and the topics stay as they are.

- `run` has the order, `findings` what a finding is, `output` how it is written.
- `offline` is what the settings alone tell; `machine` looks at its limits, and `disk` at DB_PERSIST_PATH.
- `network` is the way to a server: its name, and TCP; `tls` the handshake with it.
- `mqtt` judges what the MQTT broker answers; `app.mqtt.visit` asks.
- `kafka` judges what Kafka answers, and where its nodes are, `topics` one Kafka topic; `app.kafka.visit` asks.

The functions of each part yield findings, and before what takes time the step that is done. Each step has a limit.
"""
