"""README's first steps and the tutorials, pasted line by line, from the wheel in an empty environment."""

from __future__ import annotations

import contextlib
import doctest
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from celery_pgbg.devserver import DevServerError
from celery_pgbg.devserver.brokers import RedisServer
from tests.fix_celery import PROJECT
from tests.fix_server import missing
from tests.newcomer.pages import Step, steps_of

# An environment is made for each page, and packages may have to be fetched.
pytestmark = pytest.mark.timeout(900)

_PAGES = (PROJECT / "README.md", PROJECT / "docs" / "tutorial.md", PROJECT / "docs" / "tutorial-shop.md")

#: Nobody pastes the next page before the Celery worker of the last one has ended.
_BETWEEN_PAGES = Step("while test -e shop.pid; do sleep 0.1; done\n", None)

#: Marks the end of a step in the output.
_END = f"end-of-step-{uuid.uuid4().hex}"


@pytest.fixture
def own_redis() -> Iterator[str]:
    """A Redis of the test's own: its app has Celery's usual queue."""
    server = RedisServer(f"newcomer-{os.getpid()}")
    try:
        yield server.start()
    except DevServerError as exc:
        missing(str(exc))
    finally:
        server.purge()


@pytest.fixture
def terminal(
    tmp_path: Path, wheel: Path, new_database: Callable[[], str], own_redis: str
) -> Iterator[Callable[[list[str]], list[str]]]:
    """A terminal where nothing of ours is installed, and pip finds our wheel beside its usual index.

    Takes what is pasted, and gives what each paste printed. The servers are those of the tests.
    """
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
    ours = {key for key in os.environ if key.startswith(("PGBG_", "PYTEST_", "PYTHON", "VIRTUAL_ENV", "CELERY_"))}
    environment = {key: value for key, value in os.environ.items() if key not in ours} | {
        "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin",
        "PIP_FIND_LINKS": str(wheel.parent),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PGBG_DSN": new_database(),
        "PGBG_REDIS_URL": own_redis,
    }

    def paste(pasted: list[str]) -> list[str]:
        script = tmp_path / "pasted.sh"
        script.write_text("".join(f"{commands}echo {_END}\n" for commands in pasted))
        done = subprocess.run(
            ["bash", "-e", script],
            stdin=subprocess.DEVNULL,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout.split(f"{_END}\n")[: len(pasted)]

    yield paste
    for pidfile in tmp_path.glob("*/*.pid"):
        # Left where a step failed.
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pidfile.read_text()), signal.SIGKILL)


def test_readmes_first_steps_and_the_tutorials_do_what_they_say(
    terminal: Callable[[list[str]], list[str]],
) -> None:
    """On PostgreSQL alone."""
    assert_done(terminal, [step for page in _PAGES for step in (*steps_of(page), _BETWEEN_PAGES) if not step.optional])


def test_readmes_first_steps_with_redis(terminal: Callable[[list[str]], list[str]]) -> None:
    steps = steps_of(_PAGES[0])
    assert [step.commands for step in steps if step.optional] == [
        "export BROKER_URL=$(python -m celery_pgbg.devserver redis)\n"
    ]
    assert_done(terminal, steps)


def assert_done(terminal: Callable[[list[str]], list[str]], steps: list[Step]) -> None:
    """Paste the steps, and compare what each printed."""
    assert len(steps) > 5
    for step, printed in zip(steps, terminal([step.commands for step in steps]), strict=True):
        assert_printed(step.expected, printed)


def assert_printed(expected: str | None, printed: str) -> None:
    """Compare as doctest does, where ``...`` stands for anything and any space for any other."""
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if expected is None or doctest.OutputChecker().check_output(expected, printed, options):
        return
    pytest.fail(f"expected:\n{expected}\nprinted:\n{printed}")
