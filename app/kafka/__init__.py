"""The Kafka side: the only door to librdkafka, and what carries out the decisions of the lanes (`app.core.lane`).

`dispatcher` has the lanes and does what they decide. `confirmed` and `refused` deal with delivery reports, `lane_log`
logs them, `replay_wishes` names the lanes that may have room. `service` polls and looks for what is late.
`producer` talks to librdkafka, with `replaced_files` for new certificates and `log_filters` for what librdkafka says.

What becomes of a record: `codes` is the table of all codes, `outcomes` looks one up.

What is known of Kafka: `topics` holds it, `learning` learns what topics take and keep, `topic_limits` is the question.
`cluster` has what librdkafka tells of the nodes, by its `statistics`; `watch` judges by it whether each lane moves,
and `stranded` replaces a librdkafka that no longer learns where the nodes are.
`heard` has the bounds of each number that Kafka says, and `contained` keeps what listens to it running.
"""
