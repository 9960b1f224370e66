"""What `connector run` loads: every part, wired together in the order in which a message meets them.

Nothing is started, connected or opened by importing it.
"""

from __future__ import annotations

from paho.mqtt.enums import MQTTProtocolVersion

from agents import remover, replayer, router, writer
from app import commands, crash_points, metrics
from app.application import app, refuse, settings
from app.bounds import LONG_TOPIC_BYTES
from app.channels import ToAgents
from app.control import ControlServer
from app.core.lane_states import Policy
from app.core.memory_budget import MemoryBudget
from app.core.message import MESSAGE_OVERHEAD_BYTES
from app.core.reception import MQTT_3_WINDOW_MESSAGES, Reception
from app.data_directory import real_directory
from app.errors import SettingsError
from app.kafka.dispatcher import Dispatcher
from app.kafka.producer import KafkaProducer
from app.kafka.reports import Reports
from app.kafka.service import KafkaService
from app.lifecycle.drain import Drain
from app.lifecycle.reload import Reload
from app.lifecycle.start import FirstAnswer, Recovery
from app.lifecycle.stop import SafeStop
from app.memory import memory_limit, plan_for
from app.mqtt.connection import ConnectionSettings
from app.mqtt.generations import Generations
from app.mqtt.session import Session
from app.mqtt.shared import SharedGenerations
from app.mqtt.source import MqttSource
from app.mqtt.window import Acknowledger
from app.pages import registration as pages
from app.routes import DerivedNames, subscription_identifiers
from app.routing.derived_topics import DerivedTopics
from app.routing.route_cache import RouteCache
from app.routing.route_counts import count_routes
from app.settings import WAYS, weaknesses
from app.storage.dead_letter_commands import DeadLetterCommands
from app.storage.dead_letters import DeadLetters
from app.storage.oversize import Oversize
from app.storage.replay_reader import ReplayReader
from app.storage.writer import TableWriter
from app.turns import listed
from tables.undelivered import UndeliveredTable

__all__ = ["app"]

# 1. MQTT: what is received, and what is acknowledged.
try:
    routes = settings.route_table()
except SettingsError as error:
    refuse(error)
filters = tuple(route.mqtt_filter for route in routes.routes)
generations = (
    SharedGenerations(settings.mqtt_shared_group, filters)
    if settings.mqtt_shared_group
    else Generations(filters, subscription_identifiers(filters))
)
session = Session(generations, settings.mqtt_qos, routes)
headers_bytes = routes.headers_bytes(LONG_TOPIC_BYTES)
undivided = plan_for(memory_limit(), settings.most_kafka_topics)
memory = undivided.with_more(MESSAGE_OVERHEAD_BYTES + LONG_TOPIC_BYTES, headers_bytes)
budget = MemoryBudget(limit_bytes=memory.received_bytes)
reception = Reception(
    budget,
    settings.mqtt_receive_maximum if settings.mqtt_version == "5" else MQTT_3_WINDOW_MESSAGES,
    lambda: source.unacknowledged_messages,
)
acknowledger = Acknowledger(budget)

# 2. Kafka, and the table for what Kafka does not take.
producer = KafkaProducer(settings.kafka_configuration())
derived_names = DerivedNames(route.to for route in routes.routes)
packets = memory.packet_limit(settings.mqtt_maximum_packet_bytes, producer.largest_record_bytes)
dispatcher = Dispatcher(
    producer,
    ToAgents(),
    Policy(
        store_after_seconds=settings.store_after_ms / 1000,
        replay_limit_messages=settings.invoke_max_goroutine,
        refill_below_messages=settings.invoke_min_goroutine,
        longest_retry_seconds=settings.invoke_latency_sec,
        few_messages=reception.few_messages,
        idle_topic_seconds=settings.routes_idle_topic_sec,
        missing_topic_seconds=settings.routes_missing_topic_sec,
    ),
    limit_bytes=memory.in_flight_bytes,
    is_derived=derived_names.may_have,
)
reports = Reports(dispatcher, ToAgents(), acknowledger.acknowledge)
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
oversize = Oversize(undelivered, dispatcher, acknowledger.acknowledge)
derived_topics = DerivedTopics(settings.routes_max_topics, dispatcher.lanes)
route_cache = RouteCache(routes, settings.record_key, dispatcher.destination, derived_topics, session.copies)
message_router = router.Router(
    route_cache,
    dispatcher,
    acknowledger.acknowledge,
    settings.worker_name,
    packets,
    oversize,
    count_more=budget.count_more,
)
router.register(message_router)
dead_letters = DeadLetters(
    undelivered,
    dispatcher,
    settings.dead_letter_topic,
    message_router.next_key,
    routes,
    lambda topic: derived_topics.admit(topic, route_cache.known.forget) and bool(dispatcher.lanes[topic]),
)
table_writer = TableWriter(
    undelivered,
    dispatcher,
    acknowledger.acknowledge,
    drop_oldest=settings.undelivered_when_full == "drop_oldest",
    dead_letters=dead_letters,
    oversize=oversize,
    routes=routes,
)
writer.register(table_writer)
remover.register(table_writer)
replay_reader = ReplayReader(dispatcher, undelivered, ToAgents(), settings.replay_max_rate)
replayer.register(replay_reader, dispatcher, settings.invoke_latency_sec)

# 4. The source, which starts last and stops first.
safe_stop = SafeStop(undelivered, dispatcher, reports, message_router, budget, settings.stop_budget_sec)
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
source: MqttSource = MqttSource(connection, session, budget, safe_stop.make_safe)
drain = Drain(source, dispatcher, undelivered)
reload = Reload(settings, routes, derived_names, dispatcher, source)
by_hand = DeadLetterCommands(undelivered, dispatcher, dead_letters, table_writer)
control = ControlServer(
    data_directory,
    {
        "retry": by_hand.retry,
        "delete": by_hand.delete,
        "move": by_hand.move,
        "recount": lambda _ids: undelivered.letters.count_soon(),
        "drain": lambda _ids: drain.ask(),
        "tap": producer.taps.ask,
        "reload": lambda _ids: reload.ask(),
        "routes": lambda _ids: listed(count_routes(routes)),
    },
)
fixed_topics = [route.kafka_topic for route in routes.routes if route.kafka_topic is not None]
for_dead_letters = {settings.dead_letter_topic, *(route.dead_letter_topic for route in routes.routes)}
kafka_topics = {*fixed_topics, *filter(None, for_dead_letters)}
for route in routes.routes:
    metrics.accounts[route.name]  # so that a scrape shows every route from the start
dispatcher.lanes.keep(fixed_topics)
app.before_agents += [
    undelivered,
    KafkaService(dispatcher, reports, kafka_topics, reception),
    Recovery(undelivered, dispatcher, message_router, session, packets, memory.danger_of_topics),
]
# The replay reader needs its agent, as a channel without a subscriber drops what it is sent.
app.after_web += [replay_reader, control, FirstAnswer(dispatcher), reload, source]

# 5. What people and Prometheus look at.
metrics.gauges.register(
    dead_letter_messages=lambda: max(0, undelivered.dead_messages),
    dead_letters_dropped_total=lambda: dead_letters.dropped,
    store_limit_bytes=lambda: undelivered.limit_bytes,
    disk_free_bytes=lambda: undelivered.data.disk_free_bytes,
    draining=lambda: session.unsubscribing.has_begun,
    mqtt_connected=lambda: source.connected,
    mqtt_connections_total=lambda: source.connections,
    mqtt_connections_lost_total=lambda: source.connections_lost,
    mqtt_sessions_lost_total=lambda: session.lost,
    mqtt_faults_total=lambda: session.standing.faults,
    kafka_connected=lambda: producer.connected,
    kafka_connections_lost_total=lambda: producer.cluster.lost.total,
    store_durable=lambda: undelivered.is_durable,
    lost_messages=lambda: undelivered.lost_messages,
)
weakened = {weakness.way for weakness in weaknesses(settings)}
metrics.gauges.register_labelled(
    kafka_refusals_total=lambda: dispatcher.refused.counts,
    tls_weakened=lambda: {way: float(way in weakened) for way in WAYS},
)
pages.register(
    control=control,
    token=settings.web_token.get_secret_value() if settings.web_token else None,
    source=source,
    session=session,
    dispatcher=dispatcher,
    writer=table_writer,
    table=undelivered,
    packets=packets,
    kafka_topic_of=routes.kafka_topic_of,
)
commands.register(undelivered, data_directory, routes)

# 6. For tests of crashes.
if settings.connector_crash_point:
    try:
        crash_points.arm(settings.connector_crash_point)
    except SettingsError as error:
        refuse(error)
