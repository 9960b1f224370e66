"""The settings of the bridge itself: what is kept and for how long."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from app.routes import DerivedNames, validate_kafka_topic
from app.settings.files import checked, name_shown, path_shown
from app.settings.routes import routes_of
from app.settings.section import Section
from app.settings.values import ByteSize, PositiveNumber, choice, whole_number


class BridgeSettings(Section):
    """The table of undelivered messages, its replay, and dead letters."""

    store_after_ms: Annotated[int, whole_number(0, 60_000)] = Field(
        default=100,
        description="How long a message may be in memory alone while Kafka confirms nothing, in milliseconds, 0 to "
        "60000, before it is written to disk and acknowledged. 0 stores every message at once. As long as Kafka "
        "confirms, late answers have nothing stored, unless four fifths of the MQTT broker's window or of the "
        "memory for messages are used; but after ten times as long every message is. A crash loses the messages of "
        "QoS 0 that are in memory alone.",
    )
    db_persist_path: Path | None = Field(
        default=None,
        description="Directory of the table, which holds the messages that Kafka does not have yet; it is created if "
        "it is missing. Unset: they are kept in memory and are lost when the process ends.",
        examples=["/data"],
    )
    undelivered_max_bytes: ByteSize | None = Field(
        default=None,
        description="Size limit of the table, at least 1 MiB, also as 500MB or 2GiB. Unset: 30% of the free space at "
        "the first start; 256 MB if the table is in memory.",
    )
    undelivered_when_full: Annotated[Literal["block", "drop_oldest"], choice("block", "drop_oldest")] = Field(
        default="block",
        description="What happens when the table reaches UNDELIVERED_MAX_BYTES: block stops accepting messages, "
        "drop_oldest drops the oldest ones to make room.",
    )
    invoke_latency_sec: PositiveNumber = Field(
        default=10,
        description="The longest interval, in seconds, greater than 0, between two looks at the table for messages to "
        "send (usually they are sent sooner), between two tries of a record that Kafka refused for now, and between "
        "two replacements of the Kafka client.",
    )
    invoke_max_goroutine: Annotated[int, whole_number(2)] = Field(
        default=20_000,
        description="How many messages from the table may be in flight to Kafka at once, per Kafka topic, at least 2; "
        "new messages are not limited by it. Lower it to save memory, raise it to catch up faster. "
        "Second name: REPLAY_MAX_IN_FLIGHT.",
    )
    invoke_min_goroutine: Annotated[int, whole_number(1)] = Field(
        default=5000,
        description="When fewer messages than this are in flight, more are read from the table, per Kafka topic; at "
        "least 1, and below INVOKE_MAX_GOROUTINE. Unset, it is a quarter of INVOKE_MAX_GOROUTINE if that "
        "is below 10000. Second name: REPLAY_REFILL_BELOW.",
    )
    replay_max_rate: Annotated[int, whole_number(0)] = Field(
        default=0,
        description="How many messages per second are sent from the table at most, 0 for no limit. Set it if a "
        "backlog would be too much for Kafka or its readers, well above the usual rate of messages: below "
        "that rate a lane never catches up.",
    )
    dead_letter_topic: str | None = Field(
        default=None,
        description="Kafka topic for dead letters: messages that cannot go to their own topic, such as too large "
        "ones. Unset: they are kept in the table.",
    )

    @field_validator("db_persist_path")
    @classmethod
    def _is_no_file(cls, value: Path | None) -> Path | None:
        try:
            is_file = value is not None and value.exists() and not value.is_dir()
        except OSError as error:
            raise ValueError(f"must be the path of a directory; {path_shown(str(value))}: {error.strerror}") from None
        if is_file:
            raise ValueError(f"must be the path of a directory, but {name_shown(str(value))} is a file")
        return value

    @model_validator(mode="before")
    @classmethod
    def _min_follows_max(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Let who lowers the one bound alone have the other, in the proportion of the defaults."""
        highest = str(values.get("invoke_max_goroutine", "")).strip()
        if "invoke_min_goroutine" in values or not re.fullmatch("[0-9]{1,4}", highest):
            return values
        return {**values, "invoke_min_goroutine": str(max(1, int(highest) // 4))}

    @field_validator("invoke_min_goroutine")
    @classmethod
    def _is_below_max(cls, value: int, info: ValidationInfo) -> int:
        highest = info.data.get("invoke_max_goroutine")
        if highest is not None and value >= highest:
            raise ValueError(
                f"must be below INVOKE_MAX_GOROUTINE ({highest}), also named REPLAY_MAX_IN_FLIGHT, not {value}"
            )
        return value

    @field_validator("dead_letter_topic")
    @classmethod
    def _is_a_topic_of_its_own(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return value
        checked(validate_kafka_topic, value, "a Kafka topic: 1 to 249 characters of a-z, A-Z, 0-9, '.', '_' and '-'")
        if value in {route.kafka_topic for route in routes_of(info.data)}:
            raise ValueError(f"must be a topic of its own, but a route goes to {value}")
        if DerivedNames(route.to for route in routes_of(info.data)).may_have(value):
            raise ValueError(f"must be a topic of its own, but the template of a route can make the name {value}")
        return value
