"""What the documents say about the settings, made from the fields themselves."""

import textwrap
from dataclasses import dataclass

from app.routes import Template
from app.settings.all_settings import NAMES, SECRET_NAMES, Settings

# The variables that every installation looks at, in the order in which one thinks of them.
MAIN_NAMES = (
    "RUN_MODE",
    "MQTT_BROKER_URL",
    "MQTT_BROKER_PORT",
    "MQTT_CLIENT_ID",
    "MQTT_USER_NAME",
    "MQTT_USER_PASSWORD",
    "LOG_LVL",
    "TOPIC_LIST",
    "WILDCARD_TOPIC_LIST",
    "INVOKE_LATENCY_SEC",
    "INVOKE_MAX_GOROUTINE",
    "INVOKE_MIN_GOROUTINE",
    "KAFKA_BROKER",
    "SASL_SSL",
    "SASL_OAUTHBEARER_CLIENT_ID",
    "SASL_OAUTHBEARER_CLIENT_SECRET",
    "SASL_OAUTHBEARER_TOKEN_ENDPOINT_URI",
    "DB_PERSIST_PATH",
)

_HEADER = """\
# Settings of Connector. Copy this file to .env, which RUN_MODE=DEVELOP reads; the environment beats it.
# Nothing is substituted in values; quote one in which a # follows a blank, which would begin a comment. But docker
# (--env-file) and kustomize (envs) read quotes as a part of the value, and begin no comment within a line: write none
# there. An empty value counts as unset, except RECORD_KEY's.
# Made by `python -m app.settings` from the settings themselves: do not edit it by hand.
"""


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable, as the documents show it."""

    name: str
    description: str
    default: str
    example: str
    required: bool
    secret: bool

    @property
    def file_name(self) -> str | None:
        """The variable that names a file with the value, for secrets."""
        return f"{self.name}_FILE" if self.secret else None


def variables() -> tuple[Variable, ...]:
    """Every variable, the main ones first."""
    further = (name for name in NAMES if name not in MAIN_NAMES)
    return tuple(_variable(name) for name in (*MAIN_NAMES, *further))


def _variable(name: str) -> Variable:
    field = Settings.model_fields[name.lower()]
    return Variable(
        name=name,
        description=field.description or "",
        default="" if field.is_required() else _text(field.default),
        example=str(field.examples[0]) if field.examples else "",
        required=field.is_required(),
        secret=name in SECRET_NAMES,
    )


def _text(default: object) -> str:
    if default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return default.text if isinstance(default, Template) else str(default)


def environment_example() -> str:
    """The text of the file .env.example."""
    return "\n".join([_HEADER, *(_entry(variable) for variable in variables())])


def _entry(variable: Variable) -> str:
    text = f"Required. {variable.description}" if variable.required else variable.description
    if variable.example:
        text = f"{text} Example: {variable.example}"
    if variable.file_name:
        text = f"{text} Or set {variable.file_name} to the path of a file with the value."
    # Long examples stay on one line, to be copied.
    comment = textwrap.fill(
        text, width=120, initial_indent="# ", subsequent_indent="# ", break_long_words=False, break_on_hyphens=False
    )
    mark = "" if variable.required else "#"
    return f"{comment}\n{mark}{variable.name}={variable.default}\n"
