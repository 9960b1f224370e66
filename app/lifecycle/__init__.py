"""The beginning and the end of a worker's life.

- `start`: what a start reads from the table.
- `stop`: how everything that was received becomes safe, within a budget.
- `reload`: other routes for a running worker.
- `reload_log`: what the log says of routes, at a start and after a reload.
- `drain`: how a worker unsubscribes, and sends everything that it has to Kafka, before it goes for good.
"""
