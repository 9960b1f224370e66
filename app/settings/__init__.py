"""Every environment variable: what it is, its unit, its default and when to change it.

`load` is the one module that reads the environment. All wrong values are reported at once, and no secret ever appears
in a report, a repr or a log line.

    values, addresses, mappings, producer_config       from text to value, with the sentences that say what is allowed
    routes_file, routes_model, yaml_text               the file of routes: reading, fields, and YAML with its lines
    producer_properties                                what KAFKA_PRODUCER_CONFIG may set
    worker_names                                       SITE, and what a worker is called at Kafka
    section                                            the base of the next five
    mqtt, kafka, routes, bridge, process               the fields, and how they depend on each other
    tls_context                                        certificates, keys and authorities, as OpenSSL takes them
    all_settings                                       all of these together, and the names of the variables
    environment                                        which variables are set, by the environment and by a file
    load                                               the environment, `.env` and files with secrets
    problems                                           what is wrong with variables, in sentences
    env_file                                           what `.env` sets, and which lines of it might be lost
    files, secret_values                               how files are read; what `app.secret_forms` is to look for
    weaknesses                                         what of it weakens TLS, to be shown
    example                                            the fields as documents: `.env.example`, docs/settings.md
"""

from app.settings.all_settings import NAMES, SECRET_NAMES, Settings
from app.settings.example import Variable, environment_example, variables
from app.settings.load import (
    ENOUGH_TO_LOAD,
    load_settings,
    notify_variables,
    origin_of_settings,
    use_env_file,
    wanted_log_format,
    wanted_site,
    with_routes_read_anew,
)
from app.settings.process import TRACE, LogFormat
from app.settings.producer_properties import LARGEST_BATCH_BYTES
from app.settings.routes_model import routes_schema
from app.settings.weaknesses import WAYS, Weakness, weaknesses

__all__ = [
    "ENOUGH_TO_LOAD",
    "LARGEST_BATCH_BYTES",
    "NAMES",
    "SECRET_NAMES",
    "TRACE",
    "WAYS",
    "LogFormat",
    "Settings",
    "Variable",
    "Weakness",
    "environment_example",
    "load_settings",
    "notify_variables",
    "origin_of_settings",
    "routes_schema",
    "use_env_file",
    "variables",
    "wanted_log_format",
    "wanted_site",
    "weaknesses",
    "with_routes_read_anew",
]
