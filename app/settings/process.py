"""The settings of the process: how it starts and stops, what it logs, what it promises and where it shows itself."""

import logging
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, field_validator

from app.settings.addresses import is_host
from app.settings.files import value_shown
from app.settings.section import Section
from app.settings.values import Port, choice, whole_number
from app.settings.worker_names import SITE_ALLOWED, checked_site

# Below logging.DEBUG: single messages.
TRACE = 5

LOG_LEVELS = {
    "panic": logging.CRITICAL,
    "fatal": logging.CRITICAL,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}

_WEB_TOKEN = re.compile("[!-~]{16,1024}")
_CRASH_POINT = re.compile("[a-z-]+:[1-9][0-9]{0,8}")


def _crash_point(value: str | None) -> str | None:
    if value is not None and not _CRASH_POINT.fullmatch(value):
        raise ValueError(f"must be a place and a number from 1 on, such as after-sync:3, not {value_shown(value)}")
    return value


def _web_token(value: SecretStr | None) -> SecretStr | None:
    """Refuse what a header cannot carry, and what is soon guessed."""
    if value is not None and not _WEB_TOKEN.fullmatch(value.get_secret_value()):
        raise ValueError("must have 16 to 1024 characters, printable ASCII without blanks")
    return value


def _host_names(value: str) -> str:
    """Return a list of names as it is compared; each may begin with `*.`, none is `*` alone."""
    names = [name.strip().removesuffix(".") for name in value.split(",") if name.strip(" \t.")]
    if value and not names:
        raise ValueError(f"must be host names, separated by commas, or unset, and {value_shown(value)} has none")
    for name in names:
        if name.startswith("*.") and is_host(name[2:]) and "." not in name[2:]:
            raise ValueError(f"must not be so wide: {name} has names of strangers in it; name two labels after the *.")
        if ":" in name or not is_host(name.removeprefix("*.")):
            raise ValueError(
                "must be host names in ASCII, separated by commas, without scheme and port (*.example.com is every "
                f"name that ends so; addresses are always answered), not {value_shown(name)}"
            )
    return ",".join(names).lower()


RunMode = Literal["DEVELOP", "PRODUCTION"]
LogFormat = Literal["auto", "text", "json"]
LOG_FORMATS: tuple[LogFormat, ...] = ("auto", "text", "json")


class ProcessSettings(Section):
    """How the process behaves."""

    run_mode: Annotated[RunMode, choice("DEVELOP", "PRODUCTION", normal_case=str.upper)] = Field(
        default="DEVELOP",
        description="DEVELOP reads the file .env of the working directory if there is one (variables of the "
        "environment take precedence), PRODUCTION does not.",
    )
    site: Annotated[str | None, AfterValidator(checked_site)] = Field(
        default=None,
        description="Name of the site at which this worker runs, to tell it apart from those of other sites: "
        f"{SITE_ALLOWED}. It is in each log line, on the status page, a label of connector_build_info, and in "
        "front of MQTT_CLIENT_ID in what Kafka is told (client.id) and in the header connector-id. Set it where "
        "several sites write to one Kafka or are watched by one Prometheus.",
        examples=["oslo-1"],
    )
    connector_env_file: str | None = Field(
        default=None,
        description="File with settings in the form of .env, which is read in its place, whatever RUN_MODE is; "
        "variables of the environment take precedence. It must be there. The option --env-file of connector sets it; "
        "it cannot stand in the file itself. For a service and the commands beside it.",
        examples=["/etc/connector.env"],
    )
    log_lvl: Annotated[str, choice(*LOG_LEVELS)] = Field(
        default="info",
        description="Least severe log lines to write: panic or fatal (both: only what ends the worker), error, warn, "
        "info, debug or trace. debug and trace are for finding a fault, not for permanent use.",
    )
    log_format: Annotated[LogFormat, choice(*LOG_FORMATS)] = Field(
        default="auto",
        description="How log lines are written: text for people, json for programs (one object per line), or auto, "
        "which is text on a terminal and json otherwise.",
    )
    delivery: Annotated[Literal["at_least_once", "exactly_once"], choice("at_least_once", "exactly_once")] = Field(
        default="at_least_once",
        description="What is guaranteed across crashes: at_least_once. exactly_once is not built yet.",
    )
    stop_budget_sec: Annotated[int, whole_number(1, 600)] = Field(
        default=8,
        description="Time for a stop, in seconds, 1 to 600: up to three quarters of it to wait for Kafka, the rest to "
        "write to disk what Kafka has not confirmed. "
        "Keep it below the time after which the process is killed.",
    )
    web_host: str = Field(
        default="127.0.0.1",
        description="Address or host name at which the web pages (health, metrics, status) are served. :: (every "
        "address, IPv6 and IPv4) and 0.0.0.0 (every IPv4 address) let other hosts read them.",
    )
    web_port: Port = Field(default=6066, description="Port of the web pages, 1 to 65535.")
    web_allowed_hosts: Annotated[str, AfterValidator(_host_names)] = Field(
        default="",
        description="Host names by which Prometheus, a proxy or people reach the pages, separated by commas; "
        "*.example.com is every name that ends so, with two labels at least. IP addresses, localhost and WEB_HOST need "
        "no entry. Requests by any other name are refused (421), else a stranger could read the pages through "
        "the browser of somebody here (DNS rebinding).",
        examples=["bridge1.example.com,*.connector.svc.cluster.local"],
    )
    web_token: Annotated[SecretStr | None, AfterValidator(_web_token)] = Field(
        default=None,
        description="Token with which dead letters can be retried and deleted on the status page, and their payloads "
        "seen: 16 to 1024 printable ASCII characters without blanks. Unset: the page is read-only. "
        "Reading the pages needs no token.",
    )
    connector_crash_point: Annotated[str | None, AfterValidator(_crash_point)] = Field(
        default=None,
        description="For crash tests only: where the process kills itself, and at which passage; app/crash_points.py "
        "lists the places.",
        examples=["after-sync:3"],
    )
    unknown_names: tuple[str, ...] = Field(
        default=(), exclude=True, description="Variables that look like settings but are none; not a setting itself."
    )

    @property
    def log_level(self) -> int:
        """LOG_LVL as a level of `logging`."""
        return LOG_LEVELS[self.log_lvl]

    @field_validator("delivery")
    @classmethod
    def _is_built(cls, value: str) -> str:
        if value == "exactly_once":
            raise ValueError("exactly_once is not built yet; allowed is at_least_once")
        return value

    @field_validator("web_host")
    @classmethod
    def _is_a_host(cls, value: str) -> str:
        in_brackets = value.startswith("[") and value.endswith("]") and ":" in value
        host = value[1:-1] if in_brackets else value
        if not is_host(host):
            raise ValueError(f"must be a host name or an IP address, without port, not {value_shown(value)}")
        return host
