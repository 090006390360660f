"""The development server: started, found, crashed, interrupted, stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from celery_pgbg.devserver import DevServer, DevServerError, private_root
from celery_pgbg.devserver.apt_sources import debian_mirror
from celery_pgbg.devserver.brokers import Broker, RabbitServer, RedisServer
from celery_pgbg.devserver.cluster import Cluster
from celery_pgbg.devserver.installations import Installation, installed
from celery_pgbg.devserver.ports import PORTS, answers, free_port
from tests.fix_server import missing
from tests.waiting import eventually


@pytest.fixture
def server() -> Iterator[DevServer]:
    """A server of the test's own, in the shared root."""
    made = DevServer(f"test-{os.getpid()}")
    try:
        made.start(max_worker_processes=10, fsync=False)
    except DevServerError as exc:
        missing(str(exc))
    yield made
    made.stop(purge=True)


def one(dsn: str, query: str) -> object:
    """One value."""
    with psycopg.connect(dsn) as session:
        row = session.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_starting_twice_is_starting_once(server: DevServer) -> None:
    dsn = server.start(max_worker_processes=10, fsync=False)
    started = one(dsn, "SELECT pg_postmaster_start_time()")
    assert server.start(max_worker_processes=10, fsync=False) == dsn
    assert one(dsn, "SELECT pg_postmaster_start_time()") == started
    status = server.status()
    assert status is not None
    assert status.dsn == dsn


def test_starting_without_settings_keeps_those_it_has(server: DevServer) -> None:
    dsn = server.start()
    assert one(dsn, "SHOW max_worker_processes") == "10"
    assert one(dsn, "SHOW fsync") == "off"


def test_it_listens_on_the_loopback_alone(server: DevServer) -> None:
    dsn = server.start()
    assert one(dsn, "SHOW listen_addresses") == "127.0.0.1"
    assert one(dsn, "SHOW unix_socket_directories") == ""


def test_other_settings_restart_it(server: DevServer) -> None:
    assert one(server.start(max_worker_processes=11, fsync=False), "SHOW max_worker_processes") == "11"


@pytest.mark.parametrize("ending", ["crash", "restart fast", "restart immediate"])
def test_it_comes_back_with_its_data(server: DevServer, ending: str) -> None:
    dsn = server.dsn
    assert dsn is not None
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("CREATE TABLE kept AS SELECT 1 AS one; CHECKPOINT")
    if ending == "crash":
        server.crash()
        assert server.status() is None
        server.start(max_worker_processes=10, fsync=False)
    else:
        server.restart(ending.partition(" ")[2])
    assert server.dsn == dsn
    assert one(dsn, "SELECT one FROM kept") == 1


def test_a_pid_file_that_names_another_process_is_stale(server: DevServer) -> None:
    dsn = server.dsn
    status = server.status()
    assert status is not None
    pidfile = Path(status.data) / "postmaster.pid"
    left = pidfile.read_text().split("\n")
    server.crash()
    with psycopg.connect(DevServer().start()) as other:
        pidfile.write_text("\n".join([str(other.info.backend_pid), *left[1:]]))
        assert server.dsn is None
        assert server.start() == dsn
    assert one(str(dsn), "SELECT 1") == 1


def test_a_port_taken_meanwhile_is_replaced(server: DevServer) -> None:
    dsn = server.dsn
    assert dsn is not None
    server.stop()
    with socket.socket() as thief:
        # The server's closed connections may linger on that port.
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", int(psycopg.conninfo.conninfo_to_dict(dsn)["port"])))
        thief.listen()
        moved = server.start()
    assert moved != dsn
    assert one(moved, "SELECT 1") == 1


def test_an_interrupted_start_is_taken_back(server: DevServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.stop()
    waited = Cluster._try_launch

    def interrupted(cluster: Cluster, installation: Installation) -> None:
        waited(cluster, installation)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Cluster, "_try_launch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            server.start()
    assert server.dsn is None
    assert one(server.start(), "SELECT 1") == 1


def test_concurrent_starts_are_one(server: DevServer) -> None:
    server.stop()
    with ThreadPoolExecutor(4) as threads:
        dsns = set(threads.map(lambda _: DevServer(server.name).start(), range(4)))
    assert dsns == {server.dsn}


def test_it_stops_and_leaves_nothing(server: DevServer) -> None:
    assert server.stop(purge=True)
    assert server.dsn is None
    assert server.status() is None
    assert not server.stop()
    assert private_root.mounts_below(server.directory) == []


def run(*arguments: str, directory: Path, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """The command line, in an empty directory and without PGBG_DSN."""
    environment = {key: value for key, value in os.environ.items() if key != "PGBG_DSN"}
    environment["PGBG_DEVSERVER_DIR"] = str(directory)
    command = [*before, sys.executable, "-m", "celery_pgbg.devserver", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_who_is_not_root_is_told_the_three_ways(tmp_path: Path, not_root: tuple[str, ...]) -> None:
    if installed():
        pytest.skip("this machine has an installed pg_background")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    # PATH may name what this user may not look into, such as root's own after su.
    before = (*not_root, "env", f"PATH={closed}:{os.environ['PATH']}")
    done = run("start", directory=tmp_path, before=before)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Three ways" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_of_somebody_else_is_said(tmp_path: Path, not_root: tuple[str, ...]) -> None:
    tmp_path.chmod(0)
    try:
        done = run("start", directory=tmp_path, before=not_root)
    finally:
        tmp_path.chmod(0o700)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Permission denied" in done.stderr
    assert "set PGBG_DEVSERVER_DIR to a folder of your own" in done.stderr
    assert "Traceback" not in done.stderr


def test_asking_where_nothing_runs_has_its_exit_codes(tmp_path: Path) -> None:
    assert run("status", directory=tmp_path).returncode == 3
    asked = run("dsn", directory=tmp_path)
    assert (asked.returncode, asked.stdout) == (1, "")
    assert "not running" in asked.stderr
    assert run("stop", directory=tmp_path).returncode == 0


def test_an_interrupted_download_leaves_nothing(tmp_path: Path) -> None:
    if not private_root.can_make():
        pytest.skip("needs root on Debian")
    environment = {**os.environ, "PGBG_DEVSERVER_DIR": str(tmp_path)}
    environment.pop("PGBG_DSN", None)
    command = [sys.executable, "-m", "celery_pgbg.devserver", "start"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    eventually("it has begun", lambda: list(tmp_path.glob("root.partial-*/root")))
    process.send_signal(signal.SIGTERM)
    _, progress = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "making a private root" in progress
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock"]
    assert private_root.mounts_below(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "sources.list",
            "# deb http://no.example/debian x main\ndeb [trusted=yes] http://mirror.example/debian x main\n",
        ),
        ("sources.list.d/debian.sources", "Types: deb\nURIs: http://mirror.example/debian\nSuites: x\n"),
        ("sources.list.d/cloud.sources", "Types: deb\nURIs: mirror+file://{folder}/mirrors/debian.list\nSuites: x\n"),
    ],
)
def test_the_mirror_is_read_from_apts_own_configuration(tmp_path: Path, name: str, text: str) -> None:
    for folder in ("sources.list.d", "mirrors"):
        (tmp_path / folder).mkdir()
    (tmp_path / name).write_text(text.format(folder=tmp_path))
    (tmp_path / "sources.list.d" / "a.list").write_text("deb http://other.example/debian-security x main\n")
    (tmp_path / "mirrors" / "debian.list").write_text("http://mirror.example/debian\n")
    assert debian_mirror(tmp_path) == "http://mirror.example/debian"


def test_no_mirror_is_said_with_the_three_ways(tmp_path: Path) -> None:
    with pytest.raises(DevServerError, match="docker compose --file"):
        debian_mirror(tmp_path)


def test_no_client_can_be_given_a_free_port_before_its_server() -> None:
    least, most = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if least < PORTS.stop:
        pytest.skip("clients are given any port here")
    assert not {free_port() for _ in range(200)} & set(range(least, most + 1))


@pytest.mark.parametrize("kind", [RedisServer, RabbitServer])
def test_a_broker_of_our_own_is_started_killed_and_stopped(kind: type[Broker]) -> None:
    with tempfile.TemporaryDirectory(prefix="pgbg-broker-") as folder:
        Path(folder).chmod(0o755)  # RabbitMQ runs as a user of its own
        broker = kind("test", Path(folder))
        try:
            url = broker.start()
        except DevServerError as exc:
            missing(str(exc))
        try:
            assert broker.start() == url
            broker.crash()
            assert broker.start() == url
        finally:
            broker.stop()
        assert not answers(int(url.rstrip("/").rpartition(":")[2]))
        broker.purge()
        assert [path.name for path in Path(folder).glob("*/*")] == []


def test_what_is_no_redis_is_not_taken_for_one(amqp_url: str) -> None:
    port = int(amqp_url.rstrip("/").rpartition(":")[2])
    assert RabbitServer()._answers(port)
    assert not RedisServer()._answers(port)


def test_pgbg_dsn_is_verified_and_taken(server_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
    environment = {**os.environ, "PGBG_DSN": server_dsn}
    arguments = [sys.executable, "-m", "celery_pgbg.devserver", "start"]
    done = command(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == server_dsn
    environment["PGBG_DSN"] = "postgresql://postgres@127.0.0.1:1/x"
    refused = command(arguments, env=environment, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "PGBG_DSN" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("before", [True, False])
def test_a_name_before_or_after_the_command_is_the_server_that_is_meant(server: DevServer, before: bool) -> None:
    other = DevServer(f"{server.name}-other")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        name = ("--name", other.name)
        words = (*name, *arguments) if before else (*arguments[:1], *name, *arguments[1:])
        return run(*words, directory=server.directory)

    try:
        started = command("start", "--no-fsync", "--max-worker-processes", "10")
        assert started.stdout.strip() == other.dsn != server.dsn
        assert command("dsn").stdout == started.stdout
        stopped = command("stop", "--purge")
        assert stopped.returncode == 0, stopped.stderr
        assert repr(other.name) in stopped.stderr
    finally:
        other.stop(purge=True)
    assert command("status").returncode == 3
    assert one(str(server.dsn), "SELECT 1") == 1


def test_an_exported_dsn_of_its_own_is_no_other_server(server: DevServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGBG_DEVSERVER_DIR", str(server.directory))
    monkeypatch.setenv("PGBG_DSN", str(server.dsn))

    def command(word: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "celery_pgbg.devserver", "--name", server.name, word]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    assert command("stop").returncode == 0
    assert server.dsn is None
    assert command("start").stdout.strip() == server.dsn == os.environ["PGBG_DSN"]
    # In another database of the same server.
    elsewhere = str(server.dsn).rpartition("/")[0] + "/postgres"
    monkeypatch.setenv("PGBG_DSN", elsewhere)
    assert command("start").stdout.strip() == command("dsn").stdout.strip() == elsewhere


def test_with_pgbg_dsn_every_command_is_about_that_server(
    server: DevServer, server_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGBG_DEVSERVER_DIR", str(server.directory))
    monkeypatch.setenv("PGBG_DSN", server_dsn)

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "celery_pgbg.devserver", "--name", server.name, *arguments]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    assert command("start").stdout.strip() == server_dsn
    assert command("dsn").stdout.strip() == server_dsn
    assert server_dsn in command("status").stdout
    for stop in (["stop"], ["stop", "--purge"]):
        stopped = command(*stop)
        assert stopped.returncode == 0
        assert "nothing is stopped" in stopped.stderr
    assert one(str(server.dsn), "SELECT 1") == 1
