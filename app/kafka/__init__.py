"""The Kafka side: librdkafka, and what carries out the decisions of the lanes (`app.core.lane`).

`lanes` has the lanes, and `dispatcher` does what they decide. `reports` polls for delivery reports; it and `refused`
deal with them. `lane_log` is what is logged of lanes, and `lanes_to_replay` lists those that may have room for messages
from the table. `service` runs the Kafka side. `producer` calls librdkafka, with the properties of `producer_defaults`,
`replaced_files` for new certificates and `log_filters` for what librdkafka logs. `tap` shows what passes.

What becomes of a record: `codes` is the table of all codes, `outcomes` looks one up.

What is known of Kafka: `topics` holds it; `learning` asks, through `topic_limits`, how large and how old the records of
a topic may be, in parts that `asked_topics` chooses; `missing_topics` has the derived topics that Kafka does not have.
`ended_topics` ends lanes that are idle; for a change of librdkafka that this or `learning` wants, `standstill` waits
until nothing is in flight. `cluster` has the state of the nodes, from librdkafka's `statistics`, and
`lost_connections` how often one was lost; `quotas` has the nodes that throttle us by a quota; `watch` finds lanes
that do not move; `stranded` replaces a librdkafka that does not learn any more where the nodes are. `heard` bounds each
number that Kafka sends, and `contained` keeps the tasks that read it running. Beside the worker, `visit` asks for
`app.check`.
"""
