"""Connector: every MQTT message in Kafka, through outages and crashes.

One message, from the socket to its acknowledgement; the header of each module says what happens in it:

    MQTT thread       app.mqtt.client, reader    reads PUBLISH packets, many at a time
                      app.mqtt.hand_over         hands them to the event loop, as one `Batch`
    agent router      agents.router              finds Kafka topic, key and headers (app.routing); numbers the messages
    dispatcher        app.kafka.dispatcher       carries out what the lane of the Kafka topic decides (app.core.lane):
                                                 to librdkafka, to the table, or to both
                      app.kafka.producer         hands them to librdkafka
    and back          app.kafka.reports          polls for delivery reports, and tells the lane: confirmed, or refused
                                                 (app.kafka.refused): tried again, or a dead letter
                      app.mqtt.window            acknowledges to MQTT, in the order of receipt

In an outage the messages wait on disk:

    it is noticed     app.kafka.service          looks after each poll whether Kafka is late (app.core.lateness): then
                                                 the dispatcher asks for what is in memory alone to be stored
    agent writer      app.storage.writer         writes to the table what it is asked to store (channel undelivered)
                      app.storage.syncs          syncs it to disk, and then has it acknowledged
                      app.storage.route_limits   drops the oldest of a route that takes more than it may
    replay            app.storage.replay_reader  reads what waits, in order, when there is room for more of the lane
    agent replayer    agents.replayer            hands it to the dispatcher (channel restored)
    agent remover     agents.remover             removes from the table what Kafka has (channel delivered)

A record that Kafka refuses is tried again, or becomes a dead letter:

    it is decided     app.core.attempts          which of the two, and how it is tried again
    it is done        app.kafka.refused          has the lane wait, or asks for the dead letter (channel undelivered)
    dead letters      app.storage.dead_letters   writes them into the table, in a write of app.storage.writer; as above,
                                                 app.storage.syncs syncs them, and has them acknowledged

The message is `app.core.message`, the items of the channels are in `app.core.requests`. All decisions are made in
`app.core`, as plain code; the states of a lane are a table in `app.core.lane_states`. docs/architecture.md has the
pictures and the reasons.

The files of that path, in the order in which a message meets them first; `make path` prints them with their functions,
and a test holds these two lists against it. In the second one the message comes while its lane is behind, so it goes to
the table first:

Direct: app.mqtt.client, app.mqtt.reader, app.core.message, app.mqtt.hand_over, app.core.memory_budget, agents.router,
app.routing.route_cache, app.core.accounts, app.kafka.dispatcher, app.core.lane, app.core.in_flight, app.kafka.producer,
app.kafka.reports, app.core.lateness, app.metrics, app.mqtt.window.

Outage: app.mqtt.client, app.mqtt.reader, app.core.message, app.mqtt.hand_over, app.core.memory_budget, agents.router,
app.routing.route_cache, app.core.accounts, app.kafka.dispatcher, app.core.lane, app.channels, agents.writer,
app.storage.writer, tables.undelivered, tables.write, tables.entry, tables.figures, tables.engine.store,
app.core.unwritten, app.storage.syncs, app.metrics, app.mqtt.window, app.storage.replay_reader,
app.kafka.lanes_to_replay, app.core.in_flight, agents.replayer, app.kafka.producer, app.kafka.reports,
app.core.lateness, agents.remover.

Beside that path: `app.lifecycle` has what a start reads from the table, the steps of a stop, the drain and the reload;
`tables.repair` what a start does with damaged files; `app.mqtt.subscriber` SUBSCRIBE and UNSUBSCRIBE; `app.kafka.watch`
why a lane does not move; `app.memory` how much may be in memory; `app.bounds` how much of a message becomes headers;
`app.service_manager` what systemd is told.
Of Kafka topics whose names are made from MQTT topics, `app.routing.derived_topics` bounds the number,
`app.kafka.missing_topics` has those that Kafka does not have, and `app.kafka.ended_topics` ends the lanes.

Imports point one way, and a test says so:
command_table, listed, pieces, probes, secret_patterns, unescaped, version
<- bounds, characters, errors, metric_definitions, secret_forms, strict_json
<- core, routes, lines, logged_text, memory, open_files, own_files, service_manager, throttle, turns
<- settings, metrics, hardening, data_directory, web, command_line <- application <- channels, control, tables
<- kafka, mqtt <- routing, storage <- agents, lifecycle, plan <- check <- pages, commands, crash_points
<- main, connector.
"""
