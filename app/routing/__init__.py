"""What the router needs to know of a message: where messages like it go.

- `route_cache`: Kafka topic, key and headers of messages that look alike, worked out once.
- `mapped_to`: which route the messages of a topic belong to, and which Kafka topic is theirs.
- `removed_filters`: filters that no route has any more, by which messages may still come.
- `record_headers`: the headers that messages which look alike have in common.
- `known_routes`: what the route cache keeps, one small entry for each MQTT topic.
- `varying`: what differs among the properties of messages that look alike.
- `completing`: what differs from message to message all the same.
- `device_times`: records whose time is what the device says.
- `derived_topics`: Kafka topics whose names are made from MQTT topics: how many, and which are mixed up.
- `route_counts`: what each route did, for who asks.
- `explained`: what becomes of a topic, in words.
- `overlaps`: the warning about routes that match the same topic.
- `left_out`: properties that do not become headers, as there are too many, and headers of routes that are too long.

The routes themselves are in `app.routes`.
"""
