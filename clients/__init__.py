"""The two test clients: `publisher_mqtt` publishes numbered messages, `subscriber_kafka` reads and counts them.

`publishing` and `sequences` are their parts, `options` and `progress` what they share with the tools.
"""
