"""The settings of the MQTT side."""

import unicodedata
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from app.routes import validate_shared_group
from app.settings.addresses import parse_mqtt_broker
from app.settings.files import checked
from app.settings.section import Section
from app.settings.tls_context import check_authorities, check_key
from app.settings.values import (
    Flag,
    MqttText,
    Port,
    ReadableFile,
    byte_size,
    choice,
    mqtt_text_problem,
    tls_file,
    whole_number,
)

MQTT_TLS_PORT = 8883
# The longest topic with its packet identifier fits below the smallest, and above the largest MQTT has no length.
PACKET_BYTES = (70_000, 268_435_460)


class MqttSettings(Section):
    """How Connector signs in to the MQTT broker, and which session it keeps there."""

    mqtt_broker_url: str = Field(
        description="Where the MQTT broker is: a host, mqtt://host[:port], or mqtts://host[:port], which implies "
        "MQTT_TLS. A port in this URL takes precedence over MQTT_BROKER_PORT.",
        examples=["mqtt://localhost:1883"],
    )
    mqtt_broker_port: Port = Field(
        default=1883,
        description="Port of the MQTT broker, 1 to 65535. With mqtts:// the default is 8883.",
    )
    mqtt_client_id: MqttText = Field(
        description="Client id: the name of the session that the broker keeps while Connector is away. Give each "
        "process its own, as two clients with the same id disconnect each other. If you change it, what "
        "the broker has queued for the old id is not delivered.",
        examples=["connector-1"],
    )
    mqtt_user_name: MqttText | None = Field(
        default=None, description="User name at the MQTT broker. Set it when the broker asks for one."
    )
    mqtt_version: Annotated[Literal["5", "3.1.1"], choice("5", "3.1.1")] = Field(
        default="5",
        description="MQTT version to connect with, 5 or 3.1.1. If the broker refuses 5, Connector connects with "
        "3.1.1; set 3.1.1 to save that attempt.",
    )
    mqtt_user_password: SecretStr | None = Field(
        default=None, description="Password of MQTT_USER_NAME at the MQTT broker."
    )
    mqtt_qos: Annotated[int, whole_number(0, 2)] = Field(
        default=1,
        description="Highest QoS to subscribe with, 0, 1 or 2. With 0 the broker sends each message once and does not "
        "repeat what was lost on the network.",
    )
    mqtt_session_expiry_sec: Annotated[int, whole_number(0, 4_294_967_295)] = Field(
        default=604_800,
        description="How long the broker keeps the session while Connector is away, in seconds, 0 to 4294967295 "
        "(MQTT 5). Make it longer than the longest time that Connector may be down.",
    )
    mqtt_keepalive_sec: Annotated[int, whole_number(5, 65535)] = Field(
        default=30,
        description="Keepalive interval in seconds, 5 to 65535. Lower it to notice a dead connection sooner.",
    )
    mqtt_receive_maximum: Annotated[int, whole_number(1, 65535)] = Field(
        default=1000,
        description="How many QoS 1 and 2 messages the broker may send before the first one is acknowledged, 1 to "
        "65535 (MQTT 5). Raise it if the broker is far away.",
    )
    mqtt_maximum_packet_bytes: Annotated[int, byte_size(*PACKET_BYTES)] | None = Field(
        default=None,
        description="Largest PUBLISH packet to accept, in bytes, 70000 to 268435460, also as 20MB or 20MiB; larger "
        "ones are dropped. Unset: as large as the memory limit of the process allows and the Kafka client "
        "accepts. Lower it to save memory.",
    )
    mqtt_shared_group: str | None = Field(
        default=None,
        description="Name of a group of workers that share the messages of their filters, each with its own "
        "MQTT_CLIENT_ID and DB_PERSIST_PATH, and all with the same mappings. Text without /, + and #; "
        "needs MQTT 5. Retained messages are not sent to a group. Set it when one worker is not enough.",
        examples=["connectors"],
    )
    mqtt_tls: Flag = Field(default=False, description="Connect to the MQTT broker over TLS, true or false.")
    mqtt_ca_file: ReadableFile | None = Field(
        default=None,
        description="Path of a PEM file with the certificate authorities to trust at the MQTT broker. Set it if the "
        "system does not know them.",
    )
    mqtt_cert_file: ReadableFile | None = Field(
        default=None,
        description="Path of a PEM file with the client certificate for the MQTT broker. Set it if the broker asks "
        "for one, together with MQTT_KEY_FILE.",
    )
    mqtt_key_file: ReadableFile | None = Field(
        default=None, description="Path of a PEM file with the private key of MQTT_CERT_FILE, not encrypted."
    )

    @property
    def mqtt_host(self) -> str:
        """Host of the MQTT broker, an IPv6 address without brackets."""
        return parse_mqtt_broker(self.mqtt_broker_url).host

    @property
    def mqtt_port(self) -> int:
        """Port of the MQTT broker: the URL's, else MQTT_BROKER_PORT, else the scheme's."""
        address = parse_mqtt_broker(self.mqtt_broker_url)
        if address.port is not None:
            return address.port
        if address.tls and "mqtt_broker_port" not in self.model_fields_set:
            return MQTT_TLS_PORT
        return self.mqtt_broker_port

    @field_validator("mqtt_broker_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        parse_mqtt_broker(value)
        return value

    @field_validator("mqtt_client_id")
    @classmethod
    def _has_no_control_characters(cls, value: str) -> str:
        if any(unicodedata.category(character) == "Cc" for character in value):
            raise ValueError("must not contain control characters; allowed are 1 to 65535 bytes of UTF-8 text")
        return value

    @field_validator("mqtt_user_password")
    @classmethod
    def _is_sent_with_a_name(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None:
            return value
        if problem := mqtt_text_problem(value.get_secret_value()):
            raise ValueError(problem)
        # [MQTT-3.1.2-22] of 3.1.1; MQTT 5 allows a password alone.
        if info.data.get("mqtt_version") == "3.1.1" and info.data.get("mqtt_user_name", "") is None:
            raise ValueError("works only with MQTT_USER_NAME when MQTT_VERSION is 3.1.1")
        return value

    @field_validator("mqtt_shared_group")
    @classmethod
    def _is_a_group_of_mqtt_5(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return value
        checked(validate_shared_group, value, "the name of a group: printable text without '/', '+' and '#'")
        # Some brokers have them in 3.1.1 too, but without subscription identifiers overlapping filters would double.
        if info.data.get("mqtt_version") == "3.1.1":
            raise ValueError("works only with MQTT_VERSION=5: MQTT 3.1.1 has no shared subscriptions")
        return value

    @field_validator("mqtt_tls")
    @classmethod
    def _is_implied_by_the_url(cls, value: bool, info: ValidationInfo) -> bool:
        url = info.data.get("mqtt_broker_url")
        return value or (url is not None and parse_mqtt_broker(url).tls)

    @field_validator("mqtt_ca_file", "mqtt_cert_file", "mqtt_key_file")
    @classmethod
    def _mqtt_file_goes_with_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        tls_file(value, info, tls=info.data.get("mqtt_tls", True))
        if value is not None and info.field_name == "mqtt_ca_file":
            check_authorities(value)
        if value is not None and info.field_name == "mqtt_key_file":
            check_key(info.data.get("mqtt_cert_file"), value)
        return value
