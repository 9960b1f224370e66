"""Connector: every MQTT message in Kafka, through outages and crashes.

The path of a message, one room after the other; each module's header says what happens in it:

1. `app.mqtt.client` reads from the broker, on the MQTT thread; `app.mqtt.reader` makes messages of it, many at a time.
   `app.mqtt.admission` says which are new, where that is in doubt.
2. `app.mqtt.hand_over` passes them to the event loop as one `Batch`, through the channel `inbound`.
3. `agents.router` finds each message's Kafka topic, key and headers (`agents.kinds`, `app.routes`) and gives it its
   sequence. What belongs to no mapping, or has an illegal topic, it sets aside (6).
4. `app.kafka.lanes` decides: to Kafka at once (a *direct* lane), or to the table only (a lane that is *behind*).
5. `app.kafka.producer` hands it to librdkafka. `app.kafka.service` polls for the delivery reports and takes them back
   to the lane (4): confirmed, to be tried again, or never, as `app.kafka.outcomes` says of each code.
6. `agents.keeper` writes what Kafka did not confirm in time to the table, and what is set aside to the dead letters
   (channel `undelivered`); it removes what Kafka confirmed later (channel `delivered`). `tables.undelivered` is that
   table, `tables.store` its RocksDB.
7. `agents.replayer` reads what waits in the table, in order, and gives it to the lane once more (channel `restored`).
8. `app.mqtt.window` acknowledges to MQTT, in the order of receipt, what Kafka confirmed or the disk holds.

What travels is in `app.messages`, with the states of a message, and by `app.channels`.

The files of that path, in the order in which a message meets them first; `make path` prints them with their functions,
and a test holds these two lists against it:

Direct: app.mqtt.hand_over, app.mqtt.client, app.mqtt.reader, app.messages,
app.mqtt.window, agents.router, agents.shell, agents.kinds, agents.oversize, app.kafka.lane,
app.kafka.lanes, app.kafka.topics, app.kafka.receipt_times, app.kafka.producer, app.kafka.service, app.metrics.

Outage: app.mqtt.hand_over, app.mqtt.client, app.mqtt.reader, app.messages,
app.mqtt.window, agents.router, agents.shell, agents.kinds, agents.oversize, app.kafka.lane, app.kafka.topics,
app.kafka.lanes, agents.keeper, tables.layout, tables.undelivered, tables.piece_keys, tables.write,
tables.store, app.metrics, agents.fullness, app.throttle, tables.figures, agents.replayer, tables.shapes,
tables.pieces, app.kafka.receipt_times, app.kafka.producer, app.kafka.service.

Beside that path: what a start does with damaged files is in `tables.opening`; what is said to the MQTT broker after
CONNECT, in `app.mqtt.conversation`; why a lane does not move, in `app.kafka.watch`; how much may be in memory, in
`app.memory`, and how much of a message becomes headers, in `app.bounds`. The header of each package says what each of
its modules is for.

Imports point one way, and a test says so:
pieces, secret_patterns, unescaped <- bounds, characters, errors, metric_definitions, secret_forms, strict_json
<- routes, messages, lines, memory, open_files, own_files, throttle
<- settings, metrics, hardening, data_directory, web, command_line <- application <- channels, control, tables
<- kafka, mqtt <- agents, plan <- pages, commands, crash_points <- main.
"""
