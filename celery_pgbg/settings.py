"""The ``pgbg_*`` settings: read, normalised, validated, then frozen."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote, unquote

from celery_pgbg.errors import ConfigurationError

PREFIX = "pgbg_"
DEFAULT_ALIAS = "default"

#: The beginning of a URL; ``://`` may also be part of a password in a key=value string.
_URL = re.compile(r"[^\s=]*://")

#: The parameters of a URL; and the sign of a user with a password: a colon that is not followed by a port.
_PARAMETERS = re.compile(r"\?(?:\w+=[^&]*(?:&\w+=[^&]*)*)?")
_HAS_PASSWORD = re.compile(r"^[^/\[,]*:(?!\d+(?:[/,]|$))")

OnShutdown = Literal["detach", "wait", "cancel"]


@dataclass(frozen=True)
class Settings:
    """All settings, each named ``pgbg_`` and the field's name in the Celery configuration."""

    #: Where SQL tasks run: a PostgreSQL URL, a key=value string or, in a Django project, an alias
    #: of its ``DATABASES``. A pooler in between must use session pooling. Default: none; a SQL task without
    #: ``pgbg_dsn`` fails.
    dsn: str | None = field(default=None, repr=False)

    #: Further databases by alias, for tasks with ``database="alias"``. Default: none.
    databases: Mapping[str, str] = field(default_factory=dict, repr=False)

    #: Launching sessions for each Celery worker and database, 1 - 64. None: as many as statements in flight need, two,
    #: and one for each 500 if there are more than 1000, at most 16. Default: None.
    launchers: int | None = None

    #: Whether NOTIFY announces outcomes. With False they are polled every ``pgbg_poll_interval``. Default: True.
    notify: bool = True

    #: Seconds between two polls for outcomes without NOTIFY, 0.01 - 60. Default: 0.1.
    poll_interval: float = 0.1

    #: Seconds between two checks for background workers that ended without an outcome, and for progress, 0.1 - 300.
    #: Default: 1.
    sweep_interval: float = 1.0

    #: Largest size of one task's rows in memory, in bytes, 1 kB - 512 MB. The size is estimated: the text of the rows,
    #: 128 for each row, and 48 for each value. A larger task fails and is rolled back. Default: 16 MB.
    max_result_bytes: int = 16 * 1024 * 1024

    #: What a soft or cold shutdown does to running statements: ``detach`` lets them run on for the
    #: next Celery worker to find, ``wait`` waits for them, ``cancel`` stops them. Default: detach.
    on_shutdown: OnShutdown = "detach"

    #: Whether our tables may hold statements of tasks with ``reuse=True``, and arguments of batched tasks for ``pgbg
    #: resume``. With False, such tasks have background workers of their own, and ``resume`` continues only running
    #: tasks. Default: True.
    store_sql: bool = True

    #: How often one attempt is launched if its background worker is lost each time, as in a crash of the server, 1 -
    #: 1000. After that the task fails with ``LostTooOften``. None: no limit. Default: 5.
    max_launches: int | None = 5

    #: Seconds that outcomes are kept; at least 60. A redelivery is recognised only while the outcome is kept. None
    #: keeps outcomes for ever. Default: one day.
    outcome_expires: float | None = 86_400.0

    #: How often the broker ``pgbg://`` delivers a message that comes back each time, after a crash of its Celery
    #: worker or a reject, 1 - 1000. After that the message goes to the queue ``celery_pgbg.dead_letters``, which
    #: ``celery pgbg messages --dead`` shows. None: no limit. Default: None.
    max_deliveries: int | None = None

    #: With another broker than ``pgbg://``: whether the Celery worker forwards messages that were sent in transactions
    #: of ``pgbg_dsn``, as ``celery pgbg relay`` does. Only one relay is active at a time. Default: False.
    relay: bool = False

    #: Seconds to wait for a connection, 1 - 300. Default: 10.
    connect_timeout: float = 10.0

    #: Seconds to wait for the server's answer to one of our own short calls, 1 - 3600. After that the session is given
    #: up and opened again. Statements run on. Default: 60.
    answer_timeout: float = 60.0

    def dsn_of(self, alias: str | None) -> str:
        """Find the DSN of a database alias.

        Raises:
            ConfigurationError: no such alias, or no ``pgbg_dsn`` for the default one.
        """
        if alias in self.databases:
            return self.databases[str(alias)]
        if alias in (None, DEFAULT_ALIAS):
            if self.dsn is None:
                raise ConfigurationError(
                    "pgbg_dsn is not set: set it to the database that runs the SQL tasks, "
                    "for example app.conf.pgbg_dsn = 'postgresql://user@host/db'"
                )
            return self.dsn
        known = sorted({DEFAULT_ALIAS, *self.databases})
        raise ConfigurationError(
            f"unknown database alias {alias!r}{did_you_mean(str(alias), known)}; known: {', '.join(known)}"
        )


def did_you_mean(word: str, known: list[str]) -> str:
    """Suggest the nearest known word, as the end of a message, or nothing."""
    near = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def read_settings(values: Mapping[str, Any]) -> Settings:
    """Make the settings from a flat configuration.

    Args:
        values: every configured key that begins with ``pgbg_``, lower case.

    Raises:
        ConfigurationError: an unknown key, or a value of the wrong type or out of range.
    """
    known = [PREFIX + f.name for f in dataclasses.fields(Settings)]
    for key in values:
        if key not in known:
            raise ConfigurationError(f"unknown setting {key!r}{did_you_mean(key, known)}")
    given = {key.removeprefix(PREFIX): _CHECKS[key.removeprefix(PREFIX)](key, value) for key, value in values.items()}
    return Settings(**given)


def is_dsn(value: str) -> bool:
    """Check whether a value looks like a URL or a key=value string, not like a mere name."""
    return "=" in value or "://" in value


def normalise_dsn(key: str, value: Any) -> str:
    """Check a DSN without connecting, and encode what libpq would misread.

    An unencoded ``@`` in the password of a URL is encoded, and SQLAlchemy's ``+driver`` is dropped.
    """
    if not isinstance(value, str) or not value.strip():
        got = "an empty string" if isinstance(value, str) else type(value).__name__
        raise ConfigurationError(f"{key} must be a PostgreSQL URL or a key=value string, got {got}")
    if not is_dsn(value):
        raise ConfigurationError(
            f"{key} must be a URL such as postgresql://user@host/db or a string such as 'host=... dbname=...'"
        )
    if not _URL.match(value.strip()):
        return value.strip()
    scheme, _, rest = value.strip().partition("://")
    scheme = scheme.partition("+")[0]
    if scheme not in ("postgresql", "postgres"):
        raise ConfigurationError(f"{key} must begin with postgresql://, not with {scheme}://")
    return f"{scheme}://{_encode_user(rest)}"


def _encode_user(rest: str) -> str:
    """Percent-encode the password's own ``@``, ``/`` and ``?`` in ``user:password@host/path?parameters``."""
    address, parameters = cut_parameters(rest)
    user_and_password, at, host_and_path = address.rpartition("@")
    if not at:
        return rest
    user, colon, password = user_and_password.partition(":")
    encoded = quote(unquote(user), safe="") + colon + quote(unquote(password), safe="")
    return f"{encoded}@{host_and_path}{parameters}"


def cut_parameters(rest: str) -> tuple[str, str]:
    """Find the question mark that begins the parameters; a question mark in a password is followed by other text."""
    for found in re.finditer(r"\?", rest):
        address, parameters = rest[: found.start()], rest[found.start() :]
        # Text before an ``@`` may be the beginning of a password, unless it is a whole address.
        is_whole = "@" in address or "@" not in parameters or not _HAS_PASSWORD.search(address)
        if is_whole and _PARAMETERS.fullmatch(parameters):
            return address, parameters
    return rest, ""


def _optional(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda key, value: None if value is None else check(key, value)


def _databases(key: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{key} must be a dict of alias to DSN, got {type(value).__name__}")
    return {str(alias): normalise_dsn(f"{key}[{alias!r}]", dsn) for alias, dsn in value.items()}


def _boolean(key: str, value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        return value.lower() in ("true", "1", "yes", "on")
    if not isinstance(value, bool):
        raise ConfigurationError(f"{key} must be True or False, got {value!r}")
    return value


def _number(kind: type[int] | type[float], low: float, high: float = float("inf")) -> Callable[[str, Any], float]:
    def check(key: str, value: Any) -> float:
        try:
            number = kind(value)
        except (TypeError, ValueError):
            raise ConfigurationError(f"{key} must be a number, got {value!r}") from None
        if isinstance(value, bool) or not low <= number <= high or number != float(value):
            raise ConfigurationError(f"{key} must be {kind.__name__} in {low:g} ... {high:g}, got {value!r}")
        return number

    return check


def _one_of(*choices: str) -> Callable[[str, Any], str]:
    def check(key: str, value: Any) -> str:
        if value not in choices:
            raise ConfigurationError(
                f"{key} must be one of {', '.join(choices)}, got {value!r}{did_you_mean(str(value), list(choices))}"
            )
        return str(value)

    return check


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "dsn": _optional(normalise_dsn),
    "databases": _databases,
    "launchers": _optional(_number(int, 1, 64)),
    "notify": _boolean,
    "store_sql": _boolean,
    "poll_interval": _number(float, 0.01, 60),
    "sweep_interval": _number(float, 0.1, 300),
    "max_result_bytes": _number(int, 1024, 512 * 1024 * 1024),
    "on_shutdown": _one_of("detach", "wait", "cancel"),
    "max_launches": _optional(_number(int, 1, 1000)),
    "outcome_expires": _optional(_number(float, 60)),
    "max_deliveries": _optional(_number(int, 1, 1000)),
    "relay": _boolean,
    "connect_timeout": _number(float, 1, 300),
    "answer_timeout": _number(float, 1, 3600),
}
