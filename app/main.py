"""What `faust -A app.main worker` loads: every room, wired together in the order in which a message meets them.

Nothing is started, connected or opened by importing it.
"""

from __future__ import annotations

from paho.mqtt.enums import MQTTProtocolVersion

from agents import keeper as keeping
from agents import replayer as replaying
from agents import router as routing
from agents.dead_letters import DeadLetters
from agents.drain import Drain
from agents.oversize import Oversize
from agents.recovery import Recovery, Settlement
from app import commands, crash_points, metrics
from app.application import app, refuse, settings
from app.control import ControlServer
from app.data_directory import real_directory
from app.errors import SettingsError
from app.kafka.lanes import Lanes
from app.kafka.producer import KafkaProducer
from app.kafka.service import KafkaService
from app.memory import memory_limit, plan_for
from app.messages import Flow
from app.mqtt.connection import ConnectionSettings
from app.mqtt.generations import Generations
from app.mqtt.session import Session
from app.mqtt.shared import SharedGenerations
from app.mqtt.source import MqttSource
from app.mqtt.window import Acknowledger
from app.pages import registration as pages
from app.routes import RouteTable, subscription_identifiers
from app.settings import WAYS, weaknesses
from tables.undelivered import UndeliveredTable

__all__ = ["app"]

# 1. MQTT: what is received, and what is acknowledged.
routes = RouteTable(settings.exact_mappings, settings.wildcard_mappings)
filters = tuple(mapping.mqtt_filter for mapping in routes.mappings)
generations = (
    SharedGenerations(settings.mqtt_shared_group, filters)
    if settings.mqtt_shared_group
    else Generations(filters, subscription_identifiers(filters))
)
session = Session(generations, settings.mqtt_qos)
memory = plan_for(memory_limit())
flow = Flow(limit_bytes=memory.received_bytes)
acknowledger = Acknowledger(flow)

# 2. Kafka, and the table for what Kafka does not take.
producer = KafkaProducer(settings.kafka_configuration())
packets = memory.packet_limit(settings.mqtt_maximum_packet_bytes, producer.largest_record_bytes)
lanes = Lanes(
    producer,
    acknowledger.acknowledge,
    replay_limit_messages=settings.invoke_max_goroutine,
    refill_below_messages=settings.invoke_min_goroutine,
    store_after_seconds=settings.store_after_ms / 1000,
    longest_retry_seconds=settings.invoke_latency_sec,
    limit_bytes=memory.in_flight_bytes,
)
data_directory = real_directory(settings.db_persist_path)
undelivered: UndeliveredTable = app.tables.add(
    UndeliveredTable(
        app,
        name="undelivered",
        help="Messages that wait for Kafka, by lane and sequence.",
        directory=data_directory,
        limit_bytes=settings.undelivered_max_bytes,
        key_type=bytes,
    )
)

# 3. The agents, in the order in which a message meets them.
oversize = Oversize(undelivered, lanes, acknowledger.acknowledge)
router = routing.Router(
    routes,
    settings.record_key,
    lanes,
    session.copies,
    acknowledger.acknowledge,
    settings.mqtt_client_id,
    packets,
    oversize,
)
routing.register(router)
dead_letters = DeadLetters(undelivered, lanes, settings.dead_letter_topic, router.next_key, routes)
keeper = keeping.Keeper(
    undelivered,
    lanes,
    acknowledger.acknowledge,
    drop_oldest=settings.undelivered_when_full == "drop_oldest",
    dead_letters=dead_letters,
    oversize=oversize,
)
keeping.register(keeper, lanes)
replayer = replaying.Replayer(lanes, undelivered, settings.replay_max_rate)
replaying.register(replayer, lanes, settings.invoke_latency_sec)

# 4. The source, which starts last and stops first.
settlement = Settlement(undelivered, lanes, router, flow, settings.stop_budget_sec)
connection = ConnectionSettings(
    host=settings.mqtt_host,
    port=settings.mqtt_port,
    client_id=settings.mqtt_client_id,
    protocol=MQTTProtocolVersion.MQTTv5 if settings.mqtt_version == "5" else MQTTProtocolVersion.MQTTv311,
    keepalive_seconds=settings.mqtt_keepalive_sec,
    session_expiry_seconds=settings.mqtt_session_expiry_sec,
    receive_maximum=settings.mqtt_receive_maximum,
    largest_packet_bytes=packets.size_bytes,
    user_name=settings.mqtt_user_name,
    password=settings.mqtt_user_password.get_secret_value() if settings.mqtt_user_password else None,
    tls=settings.mqtt_tls,
    ca_file=settings.mqtt_ca_file,
    certificate_file=settings.mqtt_cert_file,
    key_file=settings.mqtt_key_file,
)
source = MqttSource(connection, session, flow, settlement.settle)
drain = Drain(source, lanes, undelivered)
control = ControlServer(
    data_directory,
    {
        "retry": keeper.retry_dead_letters,
        "delete": keeper.delete_dead_letters,
        "move": dead_letters.move,
        "recount": lambda _ids: undelivered.letters.count_soon(),
        "drain": lambda _ids: drain.ask(),
    },
    lanes.flush,
)
kafka_topics = {mapping.kafka_topic for mapping in routes.mappings} | set(filter(None, [settings.dead_letter_topic]))
for mapping in routes.mappings:
    metrics.accounts[mapping.text]  # so that a scrape shows every mapping from the start, and /status its lane
    lanes[mapping.kafka_topic]
app.before_agents += [
    undelivered,
    KafkaService(lanes, kafka_topics),
    Recovery(undelivered, lanes, router, session, packets),
]
# The replayer needs its agent, as a channel without a subscriber drops what it is sent.
app.after_web += [replayer, control, source]

# 5. What people and Prometheus look at.
metrics.gauges.register(
    dead_letter_messages=lambda: max(0, undelivered.dead_messages),
    dead_letters_dropped_total=lambda: dead_letters.dropped,
    store_limit_bytes=lambda: undelivered.limit_bytes,
    mqtt_connected=lambda: source.connected,
    mqtt_connections_total=lambda: source.connections,
    mqtt_sessions_lost_total=lambda: session.lost,
    mqtt_faults_total=lambda: session.standing.faults,
    kafka_connected=lambda: producer.connected,
    store_durable=lambda: undelivered.is_durable,
    lost_messages=lambda: undelivered.lost_messages,
)
weakened = {weakness.way for weakness in weaknesses(settings)}
metrics.gauges.register_labelled(
    kafka_refusals_total=lambda: lanes.refusals, tls_weakened=lambda: {way: float(way in weakened) for way in WAYS}
)
pages.register(
    control=control,
    token=settings.web_token.get_secret_value() if settings.web_token else None,
    source=source,
    session=session,
    lanes=lanes,
    keeper=keeper,
    table=undelivered,
    packets=packets,
)
commands.register(undelivered, data_directory, routes)

# 6. For tests of crashes.
if settings.connector_crash_point:
    try:
        crash_points.arm(settings.connector_crash_point)
    except SettingsError as error:
        refuse(error)
