"""What can become of a record: delivered, try again, or never.

*Never* is a closed list, as a record that is set aside is lost to its consumers until somebody acts. Every other
error is *try again*: the lane waits and says why.
"""

from confluent_kafka import KafkaError

TOO_LARGE = "too_large"
INVALID_RECORD = "invalid_record"
ILLEGAL_TOPIC = "illegal_kafka_topic"
INVALID_MQTT_TOPIC = "invalid_mqtt_topic"  # not UTF-8, or with characters that MQTT forbids in a topic

NEVER = {
    KafkaError.MSG_SIZE_TOO_LARGE: TOO_LARGE,
    KafkaError.INVALID_RECORD: INVALID_RECORD,
    KafkaError.TOPIC_EXCEPTION: ILLEGAL_TOPIC,
}
# These are said of a whole batch of records, and true of one of them: only a record that went alone is sure.
SAID_OF_THE_BATCH = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD})


def never_reason(error: KafkaError, *, went_alone: bool) -> str | None:
    """Return why the record will never be taken, None if it shall be tried again.

    Args:
        error: What librdkafka or the broker said.
        went_alone: No other record shared the record's batch.
    """
    code = error.code()
    if code in SAID_OF_THE_BATCH and not went_alone:
        return None
    return NEVER.get(code)
