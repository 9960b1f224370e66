"""Every code that a produce can end with, what becomes of the record, and what the operator can do: one table.

The codes are those of Kafka's protocol (0 and above) and librdkafka's own (below -1, named with a `_`). Names are
librdkafka's; where it has none, Kafka's. librdkafka handles some codes by itself, and they are here in case it does
not: after 2, 3, 5 to 9, 14 to 16, 19, 20 and 56 it tries again, 46 counts as delivered, after 59 it begins anew.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from app.routes import ILLEGAL_KAFKA_TOPIC


class Outcome(Enum):
    """What becomes of a record whose produce request ended with a code."""

    DELIVERED = "delivered"
    NEVER = "never"  # it becomes a dead letter
    AGAIN = "again"  # the lane waits and tries again
    CURRENT_TIME = "again with the current time"  # the header connector-received keeps the time of receipt
    REPLACE_CLIENT = "replace the client"  # if the record went alone; then it is tried again
    OPERATOR = "the operator must act"  # it is tried again as well, but that alone will not help


class Meaning(NamedTuple):
    """What a code means.

    Attributes:
        name: Of the code.
        outcome: What becomes of the record.
        advice: What the operator can do.
        dead_reason: With `NEVER`: the reason of the dead letter.
        of_batch: Kafka refuses a whole batch with it for one record in it; it is certain only for one that went alone.
    """

    name: str
    outcome: Outcome
    advice: str
    dead_reason: str = ""
    of_batch: bool = False


TOO_LARGE = "too_large"
INVALID_RECORD = "invalid_record"
ILLEGAL_TOPIC = ILLEGAL_KAFKA_TOPIC

_MOVE = "`connector dead-letters move TOPIC` takes the message out that is first"
_BY_ITSELF = "It passes by itself; if it lasts, look at the log of the Kafka brokers."
_TOPIC_LIMIT = "Raise {} of the topic and retry the dead letter, or send smaller messages."
_NETWORK = "Look at the network between Connector and Kafka, and at the log of the Kafka brokers."
_ELECTION = "Kafka elects another leader; if it lasts, look which brokers are down."
_REPLICAS = "Start the brokers that are down, or lower min.insync.replicas of the topic."
_NEW_CLIENT = "The Kafka client is replaced; some records may be repeated."
_OTHER_REQUEST = (
    "Kafka does not answer a produce like that: look what stands between Connector and Kafka, and at the log of the "
    f"brokers. {_MOVE}."
)
_FILES = "Look at the disk of the Kafka broker that leads the partition."
_SIGN_IN = "Correct user name, password or token, and the certificates (KAFKA_..., SASL_...)."
_OWN_CODE = f"It is not a Kafka client's answer to a produce: restart Connector, and report it if it lasts. {_MOVE}."
UNKNOWN_ADVICE = f"This version of Connector does not know the code: look it up in Kafka's list of errors. {_MOVE}."


def _rows(outcome: Outcome, advice: str, names: str) -> dict[int, Meaning]:
    """Return the same meaning for several codes, given as `number name, number name, ...`."""
    pairs = [pair.split() for pair in names.split(",")]
    return {int(number): Meaning(name, outcome, advice) for number, name in pairs}


def _never(name: str, reason: str, advice: str, *, of_batch: bool = True) -> Meaning:
    return Meaning(name, Outcome.NEVER, advice, reason, of_batch)


def _operator(name: str, advice: str) -> Meaning:
    return Meaning(name, Outcome.OPERATOR, advice)


CODES: dict[int, Meaning] = {
    0: Meaning("NO_ERROR", Outcome.DELIVERED, "Nothing."),
    46: Meaning("DUPLICATE_SEQUENCE_NUMBER", Outcome.DELIVERED, "Nothing: Kafka had the record already."),
    # ---- never, if the record went alone
    10: _never("MSG_SIZE_TOO_LARGE", TOO_LARGE, _TOPIC_LIMIT.format("max.message.bytes")),
    18: _never("RECORD_LIST_TOO_LARGE", TOO_LARGE, _TOPIC_LIMIT.format("segment.bytes")),
    87: _never(
        "INVALID_RECORD",
        INVALID_RECORD,
        "Look what the topic demands, such as a key where it is compacted (RECORD_KEY), a schema or an age.",
    ),
    17: _never(
        "TOPIC_EXCEPTION",
        ILLEGAL_TOPIC,
        "Kafka allows no topic of that name: correct the route; `dead-letters retry` cannot help.",
        of_batch=False,
    ),
    # ---- again, with the current time
    32: Meaning(
        "INVALID_TIMESTAMP",
        Outcome.CURRENT_TIME,
        "Old records are sent with the current time. If it lasts, Kafka does not take that either: set the clocks of "
        "this machine and of the Kafka brokers right, or widen message.timestamp.before.max.ms and "
        "message.timestamp.after.max.ms of the topic.",
        of_batch=True,
    ),
    # ---- replace the client
    **_rows(
        Outcome.REPLACE_CLIENT,
        _NEW_CLIENT,
        "45 OUT_OF_ORDER_SEQUENCE_NUMBER, 47 INVALID_PRODUCER_EPOCH, 48 INVALID_TXN_STATE, "
        "49 INVALID_PRODUCER_ID_MAPPING, 59 UNKNOWN_PRODUCER_ID, 90 PRODUCER_FENCED, 120 TRANSACTION_ABORTABLE, "
        "-144 _FENCED, -148 _GAPLESS_GUARANTEE, -149 _INCONSISTENT, -150 _FATAL, -172 _STATE",
    ),
    # ---- the operator must act
    3: _operator("UNKNOWN_TOPIC_OR_PART", "Create the topic; it is tried again by itself."),
    -188: _operator("_UNKNOWN_TOPIC", "Create the topic; it is tried again by itself."),
    21: _operator("INVALID_REQUIRED_ACKS", "The broker refuses acks=all: look at its configuration."),
    29: _operator("TOPIC_AUTHORIZATION_FAILED", "Grant Connector's user the rights Describe and Write on the topic."),
    31: _operator("CLUSTER_AUTHORIZATION_FAILED", "Grant Connector's user IdempotentWrite, or Write on a topic."),
    35: _operator("UNSUPPORTED_VERSION", "The Kafka broker is too old or too new for Connector: update the older one."),
    37: _operator("INVALID_PARTITIONS", "Kafka cannot create the topic: create it, or correct num.partitions."),
    38: _operator(
        "INVALID_REPLICATION_FACTOR",
        "Kafka has too few brokers to create the topic: start them, create it by hand, or correct "
        "default.replication.factor.",
    ),
    39: _operator("INVALID_REPLICA_ASSIGNMENT", "Kafka cannot create the topic: create it by hand."),
    40: _operator("INVALID_CONFIG", "The configuration of the topic is invalid: correct it."),
    42: _operator("INVALID_REQUEST", f"The broker finds the request invalid: its log says why. {_MOVE}."),
    43: _operator("UNSUPPORTED_FOR_MESSAGE_FORMAT", "Raise the topic's message.format.version: it knows no headers."),
    44: _operator("POLICY_VIOLATION", f"A policy of the Kafka brokers refuses it: ask who runs them. {_MOVE}."),
    53: _operator("TRANSACTIONAL_ID_AUTHORIZATION_FAILED", "Grant Connector's user the right IdempotentWrite."),
    54: _operator("SECURITY_DISABLED", "The brokers have no authorizer: correct their configuration, or ours."),
    76: _operator("UNSUPPORTED_COMPRESSION_TYPE", "Set KAFKA_COMPRESSION to one that the broker knows, such as gzip."),
    97: _operator("PRINCIPAL_DESERIALIZATION_FAILURE", "The brokers cannot read our user: look at their log."),
    **_rows(
        Outcome.OPERATOR,
        _SIGN_IN,
        "33 UNSUPPORTED_SASL_MECHANISM, 34 ILLEGAL_SASL_STATE, 58 SASL_AUTHENTICATION_FAILED, "
        "61 DELEGATION_TOKEN_AUTH_DISABLED, 62 DELEGATION_TOKEN_NOT_FOUND, 63 DELEGATION_TOKEN_OWNER_MISMATCH, "
        "64 DELEGATION_TOKEN_REQUEST_NOT_ALLOWED, 65 DELEGATION_TOKEN_AUTHORIZATION_FAILED, "
        "66 DELEGATION_TOKEN_EXPIRED, 67 INVALID_PRINCIPAL_TYPE, 93 UNACCEPTABLE_CREDENTIAL, "
        "-169 _AUTHENTICATION, -181 _SSL",
    ),
    **_rows(
        Outcome.OPERATOR,
        f"Correct KAFKA_PRODUCER_CONFIG; what it asks for is not to be had here. {_MOVE}.",
        "-145 _NOT_CONFIGURED, -165 _UNSUPPORTED_FEATURE, -170 _NOT_IMPLEMENTED, -171 _UNKNOWN_PROTOCOL, "
        "-186 _INVALID_ARG, -198 _BAD_COMPRESSION",
    ),
    -194: _operator("_CRIT_SYS_RESOURCE", "This machine lacks memory or threads: give Connector more."),
    -189: _operator("_FS", "A file that the Kafka client needs cannot be read: look at the certificates."),
    # ---- again
    -1: Meaning("UNKNOWN", Outcome.AGAIN, f"An error within the Kafka broker: its log says which. {_MOVE}."),
    2: Meaning("INVALID_MSG", Outcome.AGAIN, f"Kafka read a damaged record: look at the network. {_MOVE}."),
    4: Meaning("INVALID_MSG_SIZE", Outcome.AGAIN, f"The broker finds the size wrong: its log says why. {_MOVE}."),
    13: Meaning("NETWORK_EXCEPTION", Outcome.AGAIN, _NETWORK),
    19: Meaning("NOT_ENOUGH_REPLICAS", Outcome.AGAIN, _REPLICAS),
    20: Meaning("NOT_ENOUGH_REPLICAS_AFTER_APPEND", Outcome.AGAIN, _REPLICAS),
    -183: Meaning("_ISR_INSUFF", Outcome.AGAIN, _REPLICAS),
    89: Meaning("THROTTLING_QUOTA_EXCEEDED", Outcome.AGAIN, "Raise the quota of Connector's user."),
    -138: Meaning("_INVALID_DIFFERENT_RECORD", Outcome.AGAIN, "Nothing: another record of its batch was refused."),
    -184: Meaning("_QUEUE_FULL", Outcome.AGAIN, "Nothing: it is handed over when the Kafka client has room."),
    **_rows(Outcome.AGAIN, _FILES, "56 KAFKA_STORAGE_ERROR, 57 LOG_DIR_NOT_FOUND"),
    **_rows(
        Outcome.AGAIN,
        _ELECTION,
        "5 LEADER_NOT_AVAILABLE, 6 NOT_LEADER_FOR_PARTITION, 8 BROKER_NOT_AVAILABLE, 9 REPLICA_NOT_AVAILABLE, "
        "41 NOT_CONTROLLER, 74 FENCED_LEADER_EPOCH, 75 UNKNOWN_LEADER_EPOCH, 77 STALE_BROKER_EPOCH, "
        "80 PREFERRED_LEADER_NOT_AVAILABLE, 83 ELIGIBLE_LEADERS_NOT_AVAILABLE, 108 NEW_LEADER_ELECTED",
    ),
    **_rows(
        Outcome.AGAIN,
        "The topic was deleted and created again, or has fewer partitions: the client learns of it by itself.",
        "100 UNKNOWN_TOPIC_ID, 103 INCONSISTENT_TOPIC_ID, -190 _UNKNOWN_PARTITION",
    ),
    **_rows(
        Outcome.AGAIN,
        _BY_ITSELF,
        "7 REQUEST_TIMED_OUT, 14 COORDINATOR_LOAD_IN_PROGRESS, 15 COORDINATOR_NOT_AVAILABLE, 16 NOT_COORDINATOR, "
        "51 CONCURRENT_TRANSACTIONS, 55 OPERATION_NOT_ATTEMPTED, 60 REASSIGNMENT_IN_PROGRESS, "
        "129 REBOOTSTRAP_REQUIRED, -137 _DESTROY_BROKER, -141 _NOOP, -151 _PURGE_INFLIGHT, -152 _PURGE_QUEUE, "
        "-153 _RETRY, -158 _PARTIAL, -163 _INTR, -164 _WAIT_CACHE, -167 _OUTDATED, -177 _PREV_IN_PROGRESS, "
        "-178 _IN_PROGRESS, -180 _WAIT_COORD, -182 _NODE_UPDATE, -196 _FAIL, -197 _DESTROY",
    ),
    **_rows(
        Outcome.AGAIN,
        _NETWORK,
        "-146 _UNKNOWN_BROKER, -155 _UNDERFLOW, -166 _TIMED_OUT_QUEUE, -185 _TIMED_OUT, -187 _ALL_BROKERS_DOWN, "
        "-192 _MSG_TIMED_OUT, -193 _RESOLVE, -195 _TRANSPORT, -199 _BAD_MSG",
    ),
    # ---- codes that end other requests than a produce
    **_rows(
        Outcome.AGAIN,
        _OTHER_REQUEST,
        "1 OFFSET_OUT_OF_RANGE, 11 STALE_CTRL_EPOCH, 12 OFFSET_METADATA_TOO_LARGE, 22 ILLEGAL_GENERATION, "
        "23 INCONSISTENT_GROUP_PROTOCOL, 24 INVALID_GROUP_ID, 25 UNKNOWN_MEMBER_ID, 26 INVALID_SESSION_TIMEOUT, "
        "27 REBALANCE_IN_PROGRESS, 28 INVALID_COMMIT_OFFSET_SIZE, 30 GROUP_AUTHORIZATION_FAILED, "
        "36 TOPIC_ALREADY_EXISTS, 50 INVALID_TRANSACTION_TIMEOUT, 52 TRANSACTION_COORDINATOR_FENCED, "
        "68 NON_EMPTY_GROUP, 69 GROUP_ID_NOT_FOUND, 70 FETCH_SESSION_ID_NOT_FOUND, 71 INVALID_FETCH_SESSION_EPOCH, "
        "72 LISTENER_NOT_FOUND, 73 TOPIC_DELETION_DISABLED, 78 OFFSET_NOT_AVAILABLE, 79 MEMBER_ID_REQUIRED, "
        "81 GROUP_MAX_SIZE_REACHED, 82 FENCED_INSTANCE_ID, 84 ELECTION_NOT_NEEDED, 85 NO_REASSIGNMENT_IN_PROGRESS, "
        "86 GROUP_SUBSCRIBED_TO_TOPIC, 88 UNSTABLE_OFFSET_COMMIT, 91 RESOURCE_NOT_FOUND, 92 DUPLICATE_RESOURCE, "
        "94 INCONSISTENT_VOTER_SET, 95 INVALID_UPDATE_VERSION, 96 FEATURE_UPDATE_FAILED, 98 SNAPSHOT_NOT_FOUND, "
        "99 POSITION_OUT_OF_RANGE, 101 DUPLICATE_BROKER_REGISTRATION, 102 BROKER_ID_NOT_REGISTERED, "
        "104 INCONSISTENT_CLUSTER_ID, 105 TRANSACTIONAL_ID_NOT_FOUND, 106 FETCH_SESSION_TOPIC_ID_ERROR, "
        "107 INELIGIBLE_REPLICA, 109 OFFSET_MOVED_TO_TIERED_STORAGE, 110 FENCED_MEMBER_EPOCH, "
        "111 UNRELEASED_INSTANCE_ID, 112 UNSUPPORTED_ASSIGNOR, 113 STALE_MEMBER_EPOCH, 114 MISMATCHED_ENDPOINT_TYPE, "
        "115 UNSUPPORTED_ENDPOINT_TYPE, 116 UNKNOWN_CONTROLLER_ID, 117 UNKNOWN_SUBSCRIPTION_ID, "
        "118 TELEMETRY_TOO_LARGE, 119 INVALID_REGISTRATION, 121 INVALID_RECORD_STATE, 122 SHARE_SESSION_NOT_FOUND, "
        "123 INVALID_SHARE_SESSION_EPOCH, 124 FENCED_STATE_EPOCH, 125 INVALID_VOTER_KEY, 126 DUPLICATE_VOTER, "
        "127 VOTER_NOT_FOUND, 128 INVALID_REGULAR_EXPRESSION, 130 STREAMS_INVALID_TOPOLOGY, "
        "131 STREAMS_INVALID_TOPOLOGY_EPOCH, 132 STREAMS_TOPOLOGY_FENCED, 133 SHARE_SESSION_LIMIT_REACHED",
    ),
    **_rows(
        Outcome.AGAIN,
        _OWN_CODE,
        "-139 _LOG_TRUNCATION, -140 _AUTO_OFFSET_RESET, -142 _ASSIGNMENT_LOST, -143 _APPLICATION, "
        "-147 _MAX_POLL_EXCEEDED, -154 _INVALID_TYPE, -156 _NOENT, -157 _READ_ONLY, -159 _VALUE_DESERIALIZATION, "
        "-160 _KEY_DESERIALIZATION, -161 _VALUE_SERIALIZATION, -162 _KEY_SERIALIZATION, -168 _NO_OFFSET, "
        "-173 _CONFLICT, -174 _REVOKE_PARTITIONS, -175 _ASSIGN_PARTITIONS, -176 _EXISTING_SUBSCRIPTION, "
        "-179 _UNKNOWN_GROUP, -191 _PARTITION_EOF",
    ),
}
