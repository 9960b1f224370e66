"""The settings of the Kafka side, and the librdkafka configuration that follows from them."""

import ssl
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from app.settings.addresses import check_token_endpoint, parse_kafka_brokers
from app.settings.producer_config import DOCUMENT, parse_producer_config
from app.settings.producer_properties import NEEDS_TLS
from app.settings.section import Section
from app.settings.tls_context import check_authorities
from app.settings.values import Flag, ReadableFile, choice, tls_file

Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
# librdkafka's own names. Only `consistent_random` takes an empty key for none.
PARTITIONERS = ("consistent", "consistent_random", "murmur2", "murmur2_random", "fnv1a", "fnv1a_random", "random")
Partitioner = Literal["consistent", "consistent_random", "murmur2", "murmur2_random", "fnv1a", "fnv1a_random", "random"]

_OIDC_FIELDS = (
    "sasl_oauthbearer_client_id",
    "sasl_oauthbearer_client_secret",
    "sasl_oauthbearer_token_endpoint_uri",
)


# Debian and Alpine, Fedora, SUSE, macOS.
_AUTHORITIES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/ca-bundle.pem"),
    Path("/etc/ssl/cert.pem"),
)


class KafkaSettings(Section):
    """Where Kafka is, how Connector signs in there, and how the producer is tuned."""

    kafka_broker: str = Field(
        description="Where Kafka is: host[:port], several separated by commas.", examples=["localhost:9092"]
    )
    sasl_ssl: Flag = Field(
        default=False,
        description="Sign in to Kafka with OAUTHBEARER (OpenID Connect client credentials) over TLS, true or false. "
        "Needs the three SASL_OAUTHBEARER_ variables; cannot be combined with the KAFKA_SASL_ ones.",
    )
    sasl_oauthbearer_client_id: str | None = Field(
        default=None, description="OAuth client id. Required with SASL_SSL=true, otherwise not used."
    )
    sasl_oauthbearer_client_secret: SecretStr | None = Field(
        default=None, description="OAuth client secret. Required with SASL_SSL=true, otherwise not used."
    )
    sasl_oauthbearer_token_endpoint_uri: str | None = Field(
        default=None,
        description="URL from which the OAuth token is fetched, https://host[:port]/path. Required with "
        "SASL_SSL=true, otherwise not used.",
    )
    sasl_oauthbearer_ca_file: ReadableFile | None = Field(
        default=None,
        description="Path of a PEM file with the certificate authorities to trust at the token endpoint. Set it if "
        "the system does not know them; KAFKA_CA_FILE is not used there.",
    )
    kafka_tls: Flag = Field(default=False, description="Connect to Kafka over TLS, true or false.")
    kafka_ca_file: ReadableFile | None = Field(
        default=None,
        description="Path of a PEM file with the certificate authorities to trust at Kafka. Set it if the system does "
        "not know them.",
    )
    kafka_cert_file: ReadableFile | None = Field(
        default=None,
        description="Path of a PEM file with the client certificate for Kafka. Set it if Kafka asks for one, together "
        "with KAFKA_KEY_FILE.",
    )
    kafka_key_file: ReadableFile | None = Field(
        default=None, description="Path of a PEM file with the private key of KAFKA_CERT_FILE, not encrypted."
    )
    kafka_sasl_mechanism: (
        Annotated[Mechanism, choice("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", normal_case=str.upper)] | None
    ) = Field(
        default=None,
        description="Sign in to Kafka with a user name and a password: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512. Use it "
        "with KAFKA_TLS=true; without TLS others on the network can read messages and, with PLAIN, the "
        "password.",
    )
    kafka_sasl_username: str | None = Field(default=None, description="User name for KAFKA_SASL_MECHANISM.")
    kafka_sasl_password: SecretStr | None = Field(default=None, description="Password for KAFKA_SASL_MECHANISM.")
    kafka_compression: Annotated[Compression, choice("none", "gzip", "snappy", "lz4", "zstd")] = Field(
        default="lz4",
        description="How batches are compressed: none, gzip, snappy, lz4 or zstd. zstd needs less of the network, "
        "none less processor time.",
    )
    kafka_partitioner: Annotated[Partitioner, choice(*PARTITIONERS)] = Field(
        default="murmur2_random",
        description="How a record's key decides on its partition: murmur2_random as producers in Java do it (records "
        "without a key are spread); consistent_random as librdkafka, Python and Go do by default (an empty key counts "
        "as none); fnv1a_random as Sarama does. Without _random, records without a key go to one partition. random "
        "ignores keys, and records of one key lose their order. A change puts the keys into other partitions from "
        "then on.",
    )
    kafka_producer_config: SecretStr | None = Field(
        default=None,
        description='Further librdkafka properties as a JSON object, such as {"linger.ms": 20}; they beat the '
        f"other settings. {DOCUMENT} has the list of those that are allowed, and why others are not.",
    )

    def kafka_configuration(self) -> dict[str, object]:
        """The librdkafka properties for bootstrap, security and the user's own, secrets in clear text."""
        own = self.kafka_producer_config
        return {
            "bootstrap.servers": self.kafka_broker,
            "security.protocol": self._security_protocol(),
            "compression.type": self.kafka_compression,
            "partitioner": self.kafka_partitioner,
            **self._tls_properties(),
            **self._sign_in_properties(),
            **(parse_producer_config(own.get_secret_value()) if own else {}),
        }

    def _security_protocol(self) -> str:
        if self.sasl_ssl:
            return "SASL_SSL"
        transport = "SSL" if self.kafka_tls else "PLAINTEXT"
        return f"SASL_{transport}" if self.kafka_sasl_mechanism else transport

    def _tls_properties(self) -> dict[str, object]:
        files = {
            "ssl.ca.location": self.kafka_ca_file,
            "ssl.certificate.location": self.kafka_cert_file,
            "ssl.key.location": self.kafka_key_file,
        }
        return {name: str(path) for name, path in files.items() if path is not None}

    def _sign_in_properties(self) -> dict[str, object]:
        if self.sasl_ssl:
            authorities = self.sasl_oauthbearer_ca_file or _system_authorities()
            return {
                "sasl.mechanism": "OAUTHBEARER",
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.client.id": self.sasl_oauthbearer_client_id,
                "sasl.oauthbearer.client.secret": _clear(self.sasl_oauthbearer_client_secret),
                "sasl.oauthbearer.token.endpoint.url": self.sasl_oauthbearer_token_endpoint_uri,
                **({"https.ca.location": str(authorities)} if authorities else {}),
            }
        if self.kafka_sasl_mechanism:
            return {
                "sasl.mechanism": self.kafka_sasl_mechanism,
                "sasl.username": self.kafka_sasl_username,
                "sasl.password": _clear(self.kafka_sasl_password),
            }
        return {}

    @field_validator("kafka_broker")
    @classmethod
    def _are_addresses(cls, value: str) -> str:
        return parse_kafka_brokers(value)

    @field_validator(*_OIDC_FIELDS)
    @classmethod
    def _is_required_by_oidc(cls, value: str | SecretStr | None, info: ValidationInfo) -> str | SecretStr | None:
        if value is None and info.data.get("sasl_ssl"):
            raise ValueError("is required with SASL_SSL=true")
        return value

    @field_validator("sasl_oauthbearer_token_endpoint_uri")
    @classmethod
    def _is_a_url(cls, value: str | None) -> str | None:
        return value if value is None else check_token_endpoint(value)

    @field_validator("sasl_oauthbearer_ca_file")
    @classmethod
    def _is_for_oidc(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and not info.data.get("sasl_ssl", True):
            raise ValueError("works only with SASL_SSL=true")
        if value is not None:
            check_authorities(value)
        return value

    @field_validator("kafka_ca_file", "kafka_cert_file", "kafka_key_file")
    @classmethod
    def _kafka_file_goes_with_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        return tls_file(value, info, tls=info.data.get("kafka_tls", True) or info.data.get("sasl_ssl", True))

    @field_validator("kafka_sasl_mechanism", "kafka_sasl_username", "kafka_sasl_password")
    @classmethod
    def _is_excluded_by_oidc(cls, value: str | SecretStr | None, info: ValidationInfo) -> str | SecretStr | None:
        if value is not None and info.data.get("sasl_ssl"):
            raise ValueError("must be unset with SASL_SSL=true, which signs in with OAUTHBEARER")
        return value

    @field_validator("kafka_sasl_username", "kafka_sasl_password")
    @classmethod
    def _goes_with_a_mechanism(cls, value: str | SecretStr | None, info: ValidationInfo) -> str | SecretStr | None:
        # A mechanism that is itself wrong is missing here, and reported as such.
        if "kafka_sasl_mechanism" in info.data:
            mechanism = info.data["kafka_sasl_mechanism"]
            if value is None and mechanism is not None:
                raise ValueError(f"is required with KAFKA_SASL_MECHANISM={mechanism}")
            if value is not None and mechanism is None:
                raise ValueError("works only with KAFKA_SASL_MECHANISM (PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512)")
        return value

    @field_validator("kafka_producer_config")
    @classmethod
    def _is_a_configuration(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        names = parse_producer_config(value.get_secret_value()).keys() if value is not None else set()
        useless = sorted(names & NEEDS_TLS)
        if useless and not (info.data.get("kafka_tls", True) or info.data.get("sasl_ssl", True)):
            # Else the connection would silently be in clear text.
            raise ValueError(f"{', '.join(useless)} works only with KAFKA_TLS=true or SASL_SSL=true")
        useless = sorted(name for name in names if name.startswith(("sasl.oauthbearer.", "https.")))
        if useless and not info.data.get("sasl_ssl", True):
            raise ValueError(f"{', '.join(useless)} works only with SASL_SSL=true")
        return value


def _system_authorities() -> Path | None:
    """Find the system's authorities: librdkafka looks at one place for those of the token endpoint, that of Fedora."""
    named = ssl.get_default_verify_paths().cafile
    paths = [Path(named)] if named else []
    return next((path for path in (*paths, *_AUTHORITIES) if path.is_file()), None)


def _clear(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
