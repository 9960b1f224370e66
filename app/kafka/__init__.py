"""The Kafka side: the only door to librdkafka, and the lanes that decide what goes through it when.

`outcomes` sorts what can become of a record, `producer` talks to librdkafka, `lane` is the state of one Kafka topic,
`lanes` all of them together, `service` polls and looks for what is late. `topic_limits` asks what topics take,
`log_filters` thins out what librdkafka says.
"""
