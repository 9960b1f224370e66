"""The pages: metrics, health, and the status, as a page for people at `/` and as JSON.

`registration` registers the routes. `status` reads the state of the other modules, `lanes` that of each lane, and
`verdict` makes the headline. `samples` notes every second what `history`, `losses` and `trend` keep, within bounds;
`problems` keeps the last warnings. `retention` finds messages that are older than what their topic keeps.
`dead_letters` can change something, only with WEB_TOKEN.
`exposition` makes the text for Prometheus, `json_text` that of the status. `static` serves the files of the page, and
`reuse` keeps answers that are costly to make. The server is in `app.web`.

`/health/live` fails only when the process cannot recover by itself; `/health/ready` tells whether messages can be
accepted and kept. While Kafka is away they can: that is what the table is for.
"""
