"""The image of Connector, run as a container runtime runs it: entry point, user and variables are the image's own.

There is no registry and no daemon: `tests/product/build-image.sh` left the files of the image in a directory, and
`tests/product/run-image.sh` makes them the root of process 1, read-only, with a volume at /data.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from tests.support.system import Bridge

TESTS = Path(__file__).resolve().parent
COMMAND_SECONDS = 60
Finished = subprocess.CompletedProcess[str]


class Image:
    """What was built: files, and what the image says of itself."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self._described = json.loads((directory / "image.json").read_text(encoding="utf-8"))

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration, in Docker's words."""
        return self._described["Docker"]["config"]

    @property
    def created_seconds(self) -> float:
        """When it says that it was made, in seconds since 1970."""
        created: str = self._described["Docker"]["created"]
        return datetime.fromisoformat(created.replace("Z", "+00:00")).timestamp()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that are preset."""
        return dict(entry.split("=", 1) for entry in self.config["Env"])

    def volume(self, directory: Path) -> Path:
        """Return a new volume, which belongs to the image's user as the image's own /data does."""
        directory.mkdir()
        owner = (self.root / "data").stat()
        os.chown(directory, owner.st_uid, owner.st_gid)
        directory.chmod(owner.st_mode & 0o777)
        return directory

    def as_process_1(self, volume: Path, command: Sequence[str], user: str = "") -> list[str]:
        """Return the command line that runs a command of the image as process 1, as its own user or another one."""
        unshared = ["/usr/bin/unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        where = [str(self.root), str(volume), user or self.config["User"], self.config["WorkingDir"]]
        return [*unshared, str(TESTS / "run-image.sh"), *where, *command]

    def run(self, volume: Path, settings: Mapping[str, str], command: Sequence[str]) -> Finished:
        """Run a command of the image, and return when it has ended by itself."""
        return subprocess.run(
            self.as_process_1(volume, command),
            env={**self.environment, **settings},
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )


class Container(Bridge):
    """A container: a worker of the image with a volume, and the settings that `docker run -e` would give it.

    Attributes:
        user: Its user and group, and after another colon more groups.
    """

    def __init__(self, image: Image, directory: Path, *bridge: Any, **settings: object) -> None:
        super().__init__(directory, *bridge, **settings)
        self.image = image
        self.user: str = image.config["User"]
        self.volume = image.volume(directory / "volume")
        # What the image presets counts.
        self.settings = {name: value for name, value in self.settings.items() if name not in image.environment}

    def command(self) -> Sequence[str]:
        """Return the command line: entry point and command of the image."""
        config = self.image.config
        return self.image.as_process_1(self.volume, [*config["Entrypoint"], *config["Cmd"]], self.user)

    def environment(self) -> Mapping[str, str]:
        """Return the image's variables and the settings, and nothing of this machine."""
        return {**self.image.environment, **self.settings}

    @property
    def first_process(self) -> psutil.Process:
        """Process 1 of the container."""
        (child,) = psutil.Process(self.pid).children()
        return child

    def stop(self) -> None:
        """Do what `docker stop` does: the image's stop signal goes to process 1."""
        if not self.running:
            return
        assert self._process is not None
        self.first_process.send_signal(getattr(signal, self.image.config["StopSignal"]))
        self._process.wait(self.stop_limit_seconds)
        super().stop()

    def execute(self, *command: str, root: bool = False) -> Finished:
        """Run a command beside the worker, as `docker exec` does; as root to try what nobody can."""
        inside = ["/usr/bin/nsenter", "--target", str(self.first_process.pid), "--mount", "--pid", "--root", "--wd"]
        user, group, *more = self.user.split(":")
        groups = ["--groups", *more] if more else ["--clear-groups"]
        drop = [] if root else ["/usr/bin/setpriv", "--reuid", user, "--regid", group, *groups,
                                "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]  # fmt: skip
        return subprocess.run(
            [*inside, *drop, *command],
            env=dict(self.environment()),
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )

    def proc_status(self) -> dict[str, str]:
        """Return what the kernel says of process 1."""
        lines = Path(f"/proc/{self.first_process.pid}/status").read_text(encoding="utf-8").splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
