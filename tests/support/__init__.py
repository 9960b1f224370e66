"""What the tests share. `fixtures`, `guards`, `markers` and `failure_report` come with `conftest.py`.

The bridge: `system` has it as a process, with a publisher of numbered messages; `failing_worker` is one in which a
function fails on purpose, `small_memory` one in a control group with little memory; `app_settings` is enough to import
the app into the process of the test; `dispatched` makes lanes and a dispatcher without Kafka, agents and table;
`stored_messages` makes tables and fills them, `open_files` does it with few files
open; `many_topics` measures what topics that Kafka does not have cost in its client.

What it is judged by: `oracle` compares what Kafka holds with what was published; `figures` notes the verdicts for
docs/reliability.md.

Brokers beside Mosquitto and Kafka: `other_brokers` (HiveMQ, mochi-mqtt), `kafka_cluster` (three nodes); for what no
real one does, `scripted_broker` (MQTT), `scripted_kafka` and `mock_kafka`, which is librdkafka's. `KeyedProducer` is a
producer in Java.

Faults: `fault_proxy` is a network that fails, with `proxied_protocols` and `frame_faults`; `disk` has disks that fail;
the package `nemesis` lets everything fail by chance.

Pages: `page_stage` is what they show, `browser` looks at them, `raw_http` sends what no browser would.

The project itself: `controls` breaks the code on purpose, in copies; `code_structure` reads who imports and changes
what; `called_programs` finds which programs are called; `installers` has the scripts of `make brokers`.
"""
