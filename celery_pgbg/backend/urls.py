"""The URL of the result backend."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode

from psycopg.conninfo import conninfo_to_dict

from celery_pgbg.errors import ConfigurationError
from celery_pgbg.settings import cut_parameters, normalise_dsn

_SETTING = "result_backend"
_WORDS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class ResultURL:
    """The content of a URL such as ``pgbg+postgresql://user@host/db?notify=false``.

    Attributes:
        dsn: the database of the results; None: ``pgbg_dsn``.
        notify: whether NOTIFY announces results; None: as ``pgbg_notify``.
    """

    dsn: str | None
    notify: bool | None

    @classmethod
    def parse(cls, url: str | None) -> ResultURL:
        """Take a URL apart, with or without the ``pgbg+`` that Celery may have cut off.

        Raises:
            ConfigurationError: not a URL of PostgreSQL, or ``notify`` is neither true nor false.
        """
        scheme, _, rest = (url or "pgbg://").partition("://")
        address, query = cut_parameters(rest)
        words = parse_qsl(query.removeprefix("?"), keep_blank_values=True)
        notify = next((_boolean(value) for name, value in words if name == "notify"), None)
        if not address.strip("/"):
            return cls(None, notify)
        others = urlencode([pair for pair in words if pair[0] != "notify"], quote_via=quote)
        scheme = scheme.removeprefix("pgbg+").replace("pgbg", "postgresql")
        return cls(normalise_dsn(_SETTING, f"{scheme}://{address}{'?' if others else ''}{others}"), notify)

    @staticmethod
    def describe(dsn: str | None, include_password: bool) -> str:
        """Write a URL for people to read, from either form of a DSN."""
        if dsn is None:
            return "pgbg+postgresql://"
        parts = conninfo_to_dict(dsn)
        user = quote(str(parts.get("user") or ""), safe="")
        if parts.get("password"):
            user += ":" + (quote(str(parts["password"]), safe="") if include_password else "**")
        address = str(parts.get("host") or "") + (f":{parts['port']}" if parts.get("port") else "")
        return f"pgbg+postgresql://{user}{'@' if user else ''}{address}/{parts.get('dbname') or ''}"


def _boolean(value: str) -> bool:
    if value.lower() not in _WORDS:
        raise ConfigurationError(f"{_SETTING}: notify must be true or false, got {value!r}")
    return _WORDS[value.lower()]
