"""The pages: metrics, health, and the status, as a page for people at `/` and as JSON.

`registration` says what is served where. `status` reads the rooms, `lanes` is its part on each lane, `verdict` makes
the headline of it. `history`, `losses`, `problems` and `trend` are what was noted, all of it bounded; `retention` looks
for messages that are older than what their topic keeps. `dead_letters` may change something, with WEB_TOKEN alone.
`static` serves the page itself, and `reuse` gives again what was costly to make. The server beneath, and who may ask
it, is `app.web`.

`/health/live` fails only when the process cannot mend itself; `/health/ready` tells whether messages can be accepted
and kept. Kafka being away is no reason to be unready: that is what the table is for.
"""
