"""Every metric: its name, its type and labels, what it means, and what to do about it; `app.metrics` has the values."""

# name: (type, labels, what it means, what to do). docs/metrics.md is made from it; counters count since the start.
METRICS: dict[str, tuple[str, tuple[str, ...], str, str]] = {
    "connector_received_total": (
        "counter",
        ("route",),
        "Messages received. One of QoS 1 that came again after a reconnect counts again, a further copy does not",
        "",
    ),
    "connector_received_bytes_total": (
        "counter",
        ("route",),
        "Bytes of their payloads; of a packet that was too large to be held (`packet_too_large`) none",
        "",
    ),
    "connector_recovered_total": (
        "counter",
        ("route",),
        "Messages that the table held at the start, and dead letters that were retried",
        "",
    ),
    "connector_delivered_total": (
        "counter",
        ("route",),
        "Messages that Kafka confirmed",
        "If it stands still while messages are received, see `trouble` in `/status`",
    ),
    "connector_delivered_bytes_total": (
        "counter",
        ("route",),
        "Bytes of their payloads, as they came: without key and headers, and before they are compressed",
        "",
    ),
    "connector_stored_total": (
        "counter",
        ("route",),
        "Messages written to the table",
        "If it grows while Kafka is reachable, Kafka is slower than what comes in, or stops for STORE_AFTER_MS",
    ),
    "connector_replayed_total": (
        "counter",
        ("route",),
        "Messages handed to the Kafka client from the table; those that are handed over again count again",
        "",
    ),
    "connector_dead_lettered_total": (
        "counter",
        ("route", "reason"),
        "Messages that became dead letters, by reason: `too_large`, `invalid_record`, `illegal_kafka_topic`, "  # noqa: ISC004
        "`invalid_mqtt_topic`, `undecodable`, `moved_by_operator`, `perhaps_copy`, `no_kafka_topic`, "
        "`too_many_kafka_topics`, `unmapped`",
        "`connector dead-letters list`",
    ),
    "connector_dropped_total": (
        "counter",
        ("route", "reason"),
        "Messages given up: `unmapped` (filter removed), `table_full` (the oldest, with `drop_oldest`), "  # noqa: ISC004
        "`route_full` (the oldest of a route with `drop_oldest_above`), `packet_too_large`, `larger_than_table` (it "
        "came while Kafka did not take it), `miscounted` (the table counted more than it held)",
        "Map the topic, enlarge the table, send smaller messages",
    ),
    "connector_properties_left_out_total": (
        "counter",
        ("route",),
        "Messages without some of their MQTT 5 properties, which were too many or broken, or of their route's headers",
        "The log names an MQTT topic: repair its publisher. The record has the header `connector-left-out`",
    ),
    "connector_timestamps_replaced_total": (
        "counter",
        ("route", "reason"),
        "Messages whose record has the time of receipt although its route has `timestamp`: `missing` (no such user "  # noqa: ISC004
        "property), `unreadable` (not 13 decimal digits), `out_of_range` (before 2001-09-09, which is 13 digits of "
        "which the first is 0, or more than half an hour after it came)",
        "The log names an MQTT topic: repair its publisher, or set its clock",
    ),
    "connector_undelivered_messages": (
        "gauge",
        ("route",),
        "Messages in the table that Kafka has not confirmed",
        "If it grows: is Kafka reachable? `/status` names each lane's trouble",
    ),
    "connector_undelivered_bytes": (
        "gauge",
        ("route",),
        "Bytes that these messages take in the table, of UNDELIVERED_MAX_BYTES",
        "",
    ),
    "connector_dead_letter_messages": (
        "gauge",
        (),
        "Dead letters kept in the table",
        "Retry or delete them before the oldest one is dropped",
    ),
    "connector_dead_letters_dropped_total": (
        "counter",
        (),
        "Dead letters that were dropped, as all together may take a tenth of UNDELIVERED_MAX_BYTES",
        "Retry or delete dead letters in time, or set DEAD_LETTER_TOPIC",
    ),
    "connector_store_limit_bytes": ("gauge", (), "UNDELIVERED_MAX_BYTES in force", ""),
    "connector_disk_free_bytes": (
        "gauge",
        (),
        "What the disk of DB_PERSIST_PATH has free, whoever fills it; NaN for a table in memory",
        "Below 32 MiB nothing is accepted. Keep as much free as the table may still take, and 256 MiB",
    ),
    "connector_in_flight_messages": (
        "gauge",
        ("route",),
        "Messages held in memory alone: not yet confirmed by Kafka and not yet in the table",
        "",
    ),
    "connector_imbalance_messages": ("gauge", ("route",), "Messages not accounted for", "0, or a bug: please report"),
    "connector_oldest_in_flight_seconds": (
        "gauge",
        (),
        "How long the Kafka client has had the oldest record that Kafka has not answered, 0 if there is none",
        "If it grows while Kafka is reachable, a node or a partition does not answer; `/status` says which",
    ),
    "connector_oldest_undelivered_age_seconds": (
        "gauge",
        (),
        "Age of the oldest message in the table, since its receipt, 0 if there is none",
        "If it grows while Kafka is reachable, a lane waits; `/status` says which and why",
    ),
    "connector_store_full_seconds": (
        "gauge",
        (),
        "Time to a full table at the present inflow, 0 while it is full; +Inf while it does not grow",
        "Act before it is 0: with `block`, receiving stops then",
    ),
    "connector_drain_seconds": (
        "gauge",
        (),
        "Time to an empty table at the present outflow, new messages going on; +Inf while it does not shrink",
        "",
    ),
    "connector_retention_exceeded_messages": (
        "gauge",
        (),
        "Messages in the table that are older than `retention.ms` of their Kafka topic; if there are many, an estimate",
        "Kafka deletes them soon after it has confirmed them: raise the topic's `retention.ms` before that",
    ),
    "connector_ready": (
        "gauge",
        (),
        "1 while messages can be accepted and kept, as `/health/ready` says",
        "0: `/health/ready` names the reasons",
    ),
    "connector_draining": (
        "gauge",
        (),
        "1 from the moment at which somebody drains the worker, until its next start: it is subscribed to nothing",
        "Stop the worker once the command `drain` says that Kafka has everything, or restart it",
    ),
    "connector_mqtt_connected": (
        "gauge",
        (),
        "1 while the MQTT broker is connected",
        "0: the log says why each attempt failed",
    ),
    "connector_mqtt_connections_total": (
        "counter",
        (),
        "Connections that the MQTT broker has accepted since the start",
        "If it grows by itself, the log says why each one ended",
    ),
    "connector_mqtt_connections_lost_total": (
        "counter",
        (),
        "Connections that the MQTT broker had accepted and that ended, but for the one that a stop ends",
        "If it grows, the log says why each one ended",
    ),
    "connector_mqtt_sessions_lost_total": (
        "counter",
        (),
        "How often the MQTT broker had lost our session",
        "What it kept for us is lost: check persistence and session expiry of the broker",
    ),
    "connector_mqtt_faults_total": (
        "counter",
        (),
        "Connections that ended because the MQTT broker did what MQTT does not allow, or no bytes moved any more",
        "`/status` (`mqtt.last_fault`) and the log say what; report it to the broker's makers",
    ),
    "connector_kafka_connected": (
        "gauge",
        (),
        "1 while Kafka is connected, under the addresses that it advertises",
        "0: messages wait in the table; see connector_store_full_seconds for how long they can",
    ),
    "connector_kafka_connections_lost_total": (
        "counter",
        (),
        "Connections to nodes of Kafka that ended, each node once in five seconds at most; also those that Kafka ends "  # noqa: ISC004
        "as nothing was sent for long (`connections.max.idle.ms`)",
        "If it grows while messages flow, look at the network and at the log of Kafka",
    ),
    "connector_kafka_refusals_total": (
        "counter",
        ("code",),
        "Records that Kafka or its client refused, for now or for good, each time; `code` names why",
        "If it grows, `/status` names the lane that waits, and what to do",
    ),
    "connector_tls_weakened": (
        "gauge",
        ("way",),
        "1 for each way in which the settings weaken TLS, or send a secret over a network without it",
        "1: the log of the start says what to set; so does `/status`",
    ),
    "connector_store_durable": ("gauge", (), "1 when the table is on disk", "0: set DB_PERSIST_PATH"),
    "connector_lost_messages": (
        "gauge",
        (),
        "At most so many messages were lost by damaged files, as found at this start; Kafka may have some of them",
        "Look at the disk; the damaged files are kept in DB_PERSIST_PATH",
    ),
    "connector_web_refusals_total": (
        "counter",
        ("reason",),
        "Requests that the pages refused and connections that they cut: `malformed`, `too_slow`, `unread` (a client "  # noqa: ISC004
        "does not read), `too_many`, `no_files`, `host` (a name that is not listed), `other_site`, `failed`",
        "`host`: set WEB_ALLOWED_HOSTS. `too_many`: who can reach the port? `failed`: please report it",
    ),
    "connector_build_info": (
        "info",
        ("version", "format", "site"),
        "Version, version of the table's format, and SITE (no label where that is not set)",
        "",
    ),
    "connector_delivery_seconds": ("histogram", (), "From receipt to Kafka's confirmation", ""),
    "connector_store_seconds": (
        "histogram",
        (),
        "How long syncs of the table took, counted once per message",
        "Large values: a slow disk",
    ),
}
