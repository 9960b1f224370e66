"""Connector: every MQTT message in Kafka, through outages and crashes.

The path of a message, one room after the other; each module's header says what happens in it:

1. `app.mqtt.client` reads PUBLISH packets from the broker, many at a time, on the MQTT thread.
2. `app.mqtt.source` hands them to the event loop as one `Batch`, through the channel `inbound`.
3. `agents.router` finds each message's Kafka topic, key and headers (`app.routes`) and gives it its sequence.
4. `app.kafka.lanes` decides: to Kafka at once (a *direct* lane), or to the table only (a lane that is *behind*).
5. `app.kafka.producer` hands it to librdkafka and receives the delivery report.
6. `agents.keeper` writes what Kafka did not confirm in time to the table (channel `undelivered`), and removes what
   Kafka confirmed later (channel `delivered`). `tables.undelivered` is that table, `tables.store` its RocksDB.
7. `agents.replayer` feeds what waits in the table back to Kafka, in order (channel `restored`).
8. `app.mqtt.acknowledgements` acknowledges to MQTT, in the order of receipt, what Kafka confirmed or the disk holds.

Imports point one way, and a test says so:
routes, messages, errors, lines, open_files, throttle <- settings, metrics, hardening, web <- application
<- channels, control, tables <- kafka, mqtt <- agents, plan <- pages, commands, crash_points <- main.
"""
