"""Runs a route of mq-bridge until it is ended: `python -I mq_bridge_route.py CONFIGURATION`.

It belongs to the environment of mq-bridge, which has none of this project's packages.
"""

import logging
import sys

import mq_bridge  # type: ignore[import-not-found]

logging.basicConfig(level=logging.WARNING)
mq_bridge.init_logging("warn")
mq_bridge.Route.from_file(sys.argv[1], "bench").run()
