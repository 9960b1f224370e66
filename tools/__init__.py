"""Programs for whoever works on the project; no part of the bridge, and none of its two test clients.

- `path`: follows one message through the code of the bridge (`make path`).
- `tracer`: the worker of the bridge, with each call of a function of the project written down.
- `calls`: says which of these calls belong to the message.
"""
