"""A PostgreSQL server of our own while the tests run: on a socket in a temporary folder, no port, no password."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import quote

import pytest

_numbers = count()


class Server:
    """Gives out fresh databases."""

    def __init__(self, folder: Path, user: str) -> None:
        self._folder, self._user = folder, user

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{self._user}@/{database}?host={quote(str(self._folder), safe='')}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        import psycopg

        name = f"longreel_{next(_numbers)}"
        with psycopg.connect(f"host={self._folder} user={self._user} dbname=postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")  # type: ignore[call-overload]
        return self.url(name)


@contextmanager
def server() -> Iterator[Server]:
    """A running server; the test is skipped where PostgreSQL or its driver is not installed."""
    pytest.importorskip("psycopg", reason="no PostgreSQL driver: pip install 'longreel[postgres]'")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server: apt-get install postgresql")
    # It refuses to run as root.
    user = pwd.getpwuid(os.getuid()).pw_name if os.getuid() else _other_user()
    folder = Path(tempfile.mkdtemp(prefix="longreel-postgres-"))
    try:
        shutil.chown(folder, user)
        run = {"user": user, "cwd": folder, "check": True, "stdout": subprocess.DEVNULL}
        if not os.getuid():
            run["extra_groups"] = []
        data = folder / "data"
        command = [binaries / "initdb", "-D", data, "--no-sync", "--encoding=UTF8", "--no-locale", "-A", "trust"]
        subprocess.run([*command, "-U", user], **run)  # type: ignore[call-overload]
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off -c full_page_writes=off"
        start = [binaries / "pg_ctl", "-D", data, "-l", folder / "log", "-w", "-o", options, "start"]
        subprocess.run(start, **run)  # type: ignore[call-overload]
        try:
            yield Server(folder, user)
        finally:
            stop = [binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"]
            subprocess.run(stop, **run)  # type: ignore[call-overload]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path | None:
    """Where ``initdb`` lies: Debian keeps it out of the way, one folder a version."""
    places = [Path(found).parent for found in [shutil.which("initdb")] if found]
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "pg_ctl").exists()), None)


def _other_user() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    pytest.skip("not here: PostgreSQL refuses to run as root, and there is no user postgres or nobody")
