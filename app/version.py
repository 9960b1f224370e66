"""The version of Connector, where no package metadata is: the image and a source tree are not installed."""

VERSION = "0.2.0"  # a test compares it with pyproject.toml
