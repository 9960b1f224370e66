"""The archive of an image, as `docker save` writes it, without what differs from build to build.

buildah has no option for two things: the container in which the image was made, and its host name. They are in the
image's description, say nothing about the image, and would give it another digest each time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

LIST = "manifest.json"


def settle(given: Path, target: Path, tag: str) -> None:
    """Write the one image of an archive, as `buildah push` makes it, again: compressed, and with one tag."""
    with (
        tarfile.open(given) as archive,
        target.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as result,
    ):
        (image,) = json.loads(_file(archive, LIST).read())
        described = _without_builder(json.loads(_file(archive, image["Config"]).read()))
        image["Config"], image["RepoTags"] = f"{hashlib.sha256(described).hexdigest()}.json", [tag]
        for name in image["Layers"]:
            _add(result, name, archive.getmember(name).size, _file(archive, name))
        listed = _as_json([image])
        _add(result, image["Config"], len(described), io.BytesIO(described))
        _add(result, LIST, len(listed), io.BytesIO(listed))


def _without_builder(description: dict[str, Any]) -> bytes:
    """Return an image's description without the container in which it was made."""
    description["config"].pop("Hostname", None)
    return _as_json({name: value for name, value in description.items() if not name.startswith("container")})


def _as_json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _file(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    file = archive.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is no file")
    return file


def _add(archive: tarfile.TarFile, name: str, size_bytes: int, file: IO[bytes]) -> None:
    """Add a file of nobody and no time."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size_bytes, 0o644
    archive.addfile(member, file)
