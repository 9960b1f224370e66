#!/opt/connector/venv/bin/python
"""The command `connector` where no wheel is installed: in the image, and in the .venv of a source tree."""

import sys
from pathlib import Path

# The sources lie beside the virtual environment; where this file lies, which is Python's choice, there are none.
sys.path[0] = str(Path(__file__).absolute().parents[2])

from app.connector import main  # noqa: E402

main()
