"""`python -m app.settings` prints the text of the file .env.example."""

import sys

from app.settings.example import environment_example

sys.stdout.write(environment_example())
