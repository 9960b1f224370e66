"""The Faust agents: thin shells around plain coroutines, each with the channel that it reads.

- `router`: gives each message its Kafka topic, key and headers, and to the dispatcher.
- `writer`: does what the table is asked for, in the order in which it was asked.
- `remover`: removes from the table what Kafka has.
- `replayer`: hands what was read from the table to librdkafka; and the timer that has all lanes looked at.

An agent that lets an exception out is started again without the item. So an error ends the worker instead: what was not
dealt with is not acknowledged, and the broker sends it when the worker starts again. Nothing that came after it is
dealt with either, as it would be in Kafka before it.
"""
