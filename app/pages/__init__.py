"""The pages: metrics, health, and the status as JSON.

`/health/live` fails only when the process cannot mend itself; `/health/ready` tells whether messages can be accepted
and kept. Kafka being away is no reason to be unready: that is what the table is for.
"""

from app.pages.registration import register

__all__ = ["register"]
