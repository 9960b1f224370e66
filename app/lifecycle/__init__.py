"""The beginning and the end of a worker's life.

- `start`: what a start takes up from the table.
- `stop`: how everything that was received becomes safe, within a budget.
- `drain`: how a worker leaves its stream and gives Kafka everything that it has.
"""
