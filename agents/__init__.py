"""The Faust agents: thin shells around plain coroutines, each with the channel that it reads.

- `router`: gives each message its Kafka topic, key and headers, and hands it to the dispatcher.
- `writer`: passes requests to the table writer, in the order in which they were made.
- `remover`: removes from the table what Kafka has.
- `replayer`: hands what was read from the table to librdkafka; and the timer that has all lanes looked at.

Faust starts an agent again after an exception, without the item that it had. So here an error ends the worker instead:
the messages of that item are not acknowledged, and the MQTT broker delivers them again after the next start. The agents
skip all later items, as these would otherwise come to Kafka before them.
"""
