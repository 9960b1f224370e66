"""What decides about messages, as plain code: no channels, no clock, no input or output, no Kafka and no MQTT client.

Everything here is told what happened (with the time, where it matters) and answers what is to be done. For a lane it is
carried out by `app.kafka` (`dispatcher`, and `reports` and `refused` on the way back), for acknowledgements by
`app.mqtt`. So each rule is tried in microseconds.

- `message`: one MQTT message on its way to Kafka, and the states that it goes through.
- `constant_headers`: the headers that depend on QoS, RETAIN and DUP alone.
- `null_value`: the value of a record that has none.
- `acknowledging`: what a message knows of the window of its MQTT connection.
- `destination`: the Kafka topic that messages go to, as far as a message knows it.
- `requests`: what modules ask of each other, through the channels.
- `lane`: the messages of one Kafka topic, in order.
- `lane_states`: its states, the table of transitions, and what it answers.
- `attempts`: what a lane does about records that Kafka refuses.
- `lateness`: when what Kafka has not confirmed is stored.
- `unwritten`: what of a lane is to be stored and not written yet.
- `in_flight`: what librdkafka has of a lane, and the bounds that all lanes share.
- `retry`: when a lane whose record was refused is tried again.
- `device_time`: the time that a device says its message is of.
- `record_times`: which of these times a Kafka topic takes.
- `receipt_times`: which records go with the current time instead of the time of receipt.
- `accounts`: what became of the messages of each route, as the metrics have it.
- `memory_budget`: how much may be held in memory alone.
- `reception`: whether receiving is held up by it, or will be soon.
- `moment`: a moment by both clocks.
"""
