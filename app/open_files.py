"""The limit of open files: how it is raised, what it is, and what to say when it is too low."""

from __future__ import annotations

import contextlib
import resource

# Below it the table, Kafka's nodes and the pages may be in each other's way: each of them can need a hundred.
ENOUGH_FILES = 512
NO_FILE_LEFT = "Too many open files"  # as the system says it


def raise_file_limit() -> None:
    """Allow as many open files as the administrator does: the soft limit is for programs that use select()."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):  # more than the kernel allows; then what there is must do
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def file_limit() -> int:
    """Return how many files this process may have open, connections among them."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if limit == resource.RLIM_INFINITY else limit


def file_limit_advice() -> str:
    """Say which limit of open files is in force, and how it is raised."""
    return (
        f"the limit of open files is {file_limit()}; raise it to {ENOUGH_FILES} or more (`ulimit -Hn`, LimitNOFILE in "
        "a unit of systemd)"
    )
