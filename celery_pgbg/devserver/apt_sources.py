"""The mirror of Debian that this machine's own apt uses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from celery_pgbg.devserver.errors import THREE_WAYS, DevServerError

_ARCHIVE = re.compile(r"/debian/?$")
_MIRROR_LIST = re.compile(r"^mirror\+file:/+")


def debian_mirror(folder: Path = Path("/etc/apt")) -> str:
    """Find the mirror of Debian's main archive, not that of the security updates.

    Raises:
        DevServerError: there is none.
    """
    for path in sorted([folder / "sources.list", *folder.glob("sources.list.d/*")]):
        for uri in _uris(path):
            if _ARCHIVE.search(uri):
                return uri
    raise DevServerError("no mirror of Debian found in apt's configuration\n" + THREE_WAYS)


def _uris(path: Path) -> Iterator[str]:
    """The addresses in one file of apt's sources, in either format."""
    if path.suffix not in (".list", ".sources") or not path.exists():
        return
    keyword = "uris:" if path.suffix == ".sources" else "deb "
    for line in path.read_text().splitlines():
        if line.lower().startswith(keyword):
            for word in line.split()[1:]:
                yield from _expanded(word)


def _expanded(uri: str) -> Iterator[str]:
    """The address itself, or those in the list it names, as Debian's cloud images have it."""
    if _MIRROR_LIST.match(uri):
        mirrors = Path("/" + _MIRROR_LIST.sub("", uri))
        yield from mirrors.read_text().split() if mirrors.exists() else ()
    elif "://" in uri:
        yield uri
