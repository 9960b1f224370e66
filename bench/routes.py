"""What a message costs by a file of routes: one route, ten thousand, and one template over ten thousand sites.

The messages are the same in all runs, of ten thousand MQTT topics, each of which comes sixty times. Each has come once
before: what the first message of a topic takes is measured with fleets (`bench.fleet`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from bench.bridges import Connector
from bench.crossing import cross
from bench.load import WARM_UP_MESSAGES, Publisher, Traffic
from bench.stage import Run, Stage

SITES = 10_000
MESSAGES = 600_000
WARM_UP = "routes:\n  - {{name: warm-up, from: bench/warm-up, to: {topic}}}\n"
ROUNDS_LIMIT = 3


@dataclass(frozen=True)
class Routes:
    """What one run came to.

    Attributes:
        case: What the file has.
        cpu_us: Processor time per message, microseconds.
        rate: Messages a second.
        peak_mb: The most memory.
    """

    case: str
    cpu_us: float
    rate: float
    peak_mb: float


def one_route(topic: str) -> str:
    """Return one route for everything."""
    return f"  - {{name: all, from: bench/#, to: {topic}}}\n"


def many_routes(topic: str) -> str:
    """Return a route for each site."""
    return "".join(f"  - {{name: site {n}, from: bench/{n}/#, to: {topic}}}\n" for n in range(SITES))


def one_template(topic: str) -> str:
    """Return a route whose Kafka topic is made of the MQTT topic: of its last level, as all sites share one here."""
    return f"  - {{name: sites, from: 'bench/{{site}}/{{end}}', to: '{topic[:-1]}{{end}}'}}\n"


def measure(stage: Stage, case: str, routes: Callable[[str], str]) -> Routes:
    """Run Connector once with a file of routes, at QoS 1 and full rate."""
    with stage.run() as run:
        topics = [f"bench/{number}/{run.topic[-1]}" for number in range(SITES)]
        traffic = Traffic(topics, MESSAGES)
        firsts, publisher = (Publisher(run.mosquitto.port, each) for each in (Traffic(topics, SITES), traffic))
        settings = {"wildcard_topic_list": "", "routes_file": _written(run, routes(run.topic))}
        with run.bridge(Connector, traffic.qos, traffic.messages, **settings) as bridge:
            run.warm_up(traffic.qos, expected=WARM_UP_MESSAGES)
            cross(run, firsts, SITES, bridge)
            took = cross(run, publisher, traffic.messages, bridge)
    return Routes(case, took.cpu_us, took.rate, took.usage.peak_bytes / 1e6)


def _written(run: Run, routes: str) -> str:
    """Write a file of routes; return its path."""
    path = run.directory / "routes.yaml"
    path.write_text(WARM_UP.format(topic=run.topic) + routes, encoding="utf-8")
    path.chmod(0o644)
    return str(path)


def runs() -> list[tuple[str, Callable[[Stage], object]]]:
    """Return what is to be measured."""
    cases = {"one route": one_route, f"{SITES:,} routes": many_routes, f"one template, {SITES:,} sites": one_template}
    return [(case, functools.partial(measure, case=case, routes=routes)) for case, routes in cases.items()]
