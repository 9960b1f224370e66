"""SITE, and the names that a worker has with it: in `connector-id`, and as `client.id` at Kafka.

Workers of many sites are often made from one set of files, and then have the same MQTT_CLIENT_ID. SITE tells them
apart: with it in front, the name is a worker's own at all sites. Without SITE the name is MQTT_CLIENT_ID, as it is. The
log, the status page and `connector_build_info` show SITE by itself.
"""

from __future__ import annotations

import re

from app.settings.files import value_shown

LONGEST_SITE_CHARACTERS = 63  # as the value of a label may have in Kubernetes
SITE_ALLOWED = f"1 to {LONGEST_SITE_CHARACTERS} of the characters a-z, A-Z, 0-9, '.', '_' and '-'"
# Kafka takes 32,767 bytes. But people read it in quotas, broker logs and the names of metrics, and it may become the
# name of a file there, which has 255.
LONGEST_KAFKA_CLIENT_ID_CHARACTERS = 200

_SITE = re.compile(rf"[a-zA-Z0-9._-]{{1,{LONGEST_SITE_CHARACTERS}}}")
_NOT_FOR_KAFKA = re.compile("[^a-zA-Z0-9._-]")


def checked_site(value: str | None) -> str | None:
    """Return a site that may be the value of SITE.

    Raises:
        ValueError: It has other characters, or is too long.
    """
    if value is not None and not _SITE.fullmatch(value):
        raise ValueError(f"must have {SITE_ALLOWED}, not {value_shown(value)}")
    return value


def worker_name(site: str | None, mqtt_client_id: str) -> str:
    """Return the name of a worker: MQTT_CLIENT_ID, and where there is a SITE, that and a dot in front of it."""
    return f"{site}.{mqtt_client_id}" if site else mqtt_client_id


def kafka_client_id(name: str) -> str:
    """Return what the worker of that name is called at Kafka: `client.id`, with characters that topics may have too."""
    return _NOT_FOR_KAFKA.sub("_", name)[:LONGEST_KAFKA_CLIENT_ID_CHARACTERS]
