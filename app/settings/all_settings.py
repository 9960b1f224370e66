"""All settings together, and the names of their variables."""

from typing import get_args

from pydantic import SecretStr

from app.settings.bridge import BridgeSettings
from app.settings.kafka import KafkaSettings
from app.settings.mqtt import MqttSettings
from app.settings.process import ProcessSettings
from app.settings.routes import RoutesSettings
from app.settings.worker_names import kafka_client_id, worker_name


class Settings(ProcessSettings, BridgeSettings, RoutesSettings, KafkaSettings, MqttSettings):
    """Every setting of Connector; a field is the environment variable of the same name in lower case."""

    @property
    def worker_name(self) -> str:
        """The worker's own name at all sites: SITE and MQTT_CLIENT_ID."""
        return worker_name(self.site, self.mqtt_client_id)

    def kafka_configuration(self) -> dict[str, object]:
        """The librdkafka properties, with the worker's name for Kafka; KAFKA_PRODUCER_CONFIG may set another."""
        return {"client.id": kafka_client_id(self.worker_name), **super().kafka_configuration()}


NAMES: tuple[str, ...] = tuple(name.upper() for name in Settings.model_fields if name != "unknown_names")
SECRET_NAMES: tuple[str, ...] = tuple(
    name for name in NAMES if SecretStr in get_args(Settings.model_fields[name.lower()].annotation)
)
# The variable that names the file of a secret, and that secret.
FILE_NAMES = {f"{name}_FILE": name for name in SECRET_NAMES}
# Readable names of variables whose names come from elsewhere, and those.
TWINS = {"REPLAY_MAX_IN_FLIGHT": "INVOKE_MAX_GOROUTINE", "REPLAY_REFILL_BELOW": "INVOKE_MIN_GOROUTINE"}
# All names that are read.
OURS = frozenset({*NAMES, *FILE_NAMES, *TWINS})
