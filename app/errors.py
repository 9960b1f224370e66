"""The errors of Connector, and the exit code that each ends the worker with.

ConnectorError               1
|-- SettingsError            2  a setting is wrong or missing
|-- DataDirectoryError       3  the data directory is in use or cannot be used
|   `-- DamagedError         3  its files are damaged; a worker repairs them, a command that only reads reports it
`-- StoreError               1  the table could not be written or synced
"""

from collections.abc import Sequence

WHERE_SETTINGS_ARE = ".env.example explains every setting"
BESIDE_A_WORKER = (
    "a command beside a worker needs the worker's settings and its user: with the service of systemd, "
    "`sudo connector COMMAND`; with settings in a file, `connector --env-file FILE COMMAND`"
)


class ConnectorError(Exception):
    """An error that the operator can act on; its text says how."""

    exit_code = 1


class SettingsError(ConnectorError):
    """One or more settings are wrong; nothing was connected.

    Operator action: correct every variable that the report names, and start again.

    Attributes:
        problems: One line per problem, "NAME: what is wrong and what is allowed".
    """

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"{len(self.problems)} setting(s) to correct:\n{lines}")

    @property
    def has_missing(self) -> bool:
        """Whether something that is required is not set."""
        return any(": is required. " in problem for problem in self.problems)


class DataDirectoryError(ConnectorError):
    """The data directory cannot be used.

    Operator action: the text says whether another worker holds it, its rights are wrong, or the disk is full.
    """

    exit_code = 3


class DamagedError(DataDirectoryError):
    """Files of the data directory are damaged.

    Operator action: start the worker, which sets them aside and goes on with what is readable.
    """


class StoreError(ConnectorError):
    """A write to the table or its sync failed; what was in it is unknown, nothing of it was acknowledged.

    Operator action: look at the disk (space, errors); the worker ends, and recovers what is readable when it starts.
    """
