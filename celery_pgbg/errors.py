"""Our own errors, grouped by the person who has to act.

    PgbgError
    ├── ConfigurationError      operator of the Celery worker: a setting, or the server's installation
    │   ├── ExtensionMissing    pg_background is not in the database, or too old
    │   ├── SchemaMissing       the celery_pgbg schema is missing, or of another version
    │   └── ServerRefused       the server refused the connection for good: password, database, role
    ├── TaskDefinitionError     author of the task: its options, its body's return value
    │   └── BindingError        a placeholder without an argument, a value that cannot be bound
    ├── MessageRefused          sender of the task: a field of its message is wrong
    ├── LostTooOften            author of the task, or operator of the server: each of its background workers ended
    ├── SendingFailed           sender: the caller's transaction cannot carry the message
    ├── CannotRunInline         author of the test: the task needs a background worker
    ├── ResultTooLarge          author of the task: rows above ``pgbg_max_result_bytes``
    └── SessionLost             nobody: our connection died; an outcome may exist

Errors of a task's own SQL are psycopg's classes, never these.
"""

from __future__ import annotations


class PgbgError(Exception):
    """Base class. Takes one positional message, so that any result serializer can rebuild it."""


class ConfigurationError(PgbgError):
    """A setting is missing, unknown or out of range."""


class ExtensionMissing(ConfigurationError):
    """The database has no pg_background, or a version that lacks what we need."""


class SchemaMissing(ConfigurationError):
    """The database has no celery_pgbg schema, or another version of the schema."""


class ServerRefused(ConfigurationError):
    """The server refused the connection, and would refuse it again."""


class TaskDefinitionError(PgbgError):
    """The task's options, or the return value of its body, are wrong."""


class BindingError(TaskDefinitionError):
    """The task's arguments do not fit the statement's placeholders."""


class MessageRefused(PgbgError):
    """A field of the task's message has a value that Celery does not write; the task was not run."""


class LostTooOften(PgbgError):
    """Background workers of this attempt were lost ``pgbg_max_launches`` times; its effects are absent."""


class SendingFailed(PgbgError):
    """The caller's transaction cannot carry the message; nothing was sent."""


class CannotRunInline(PgbgError):
    """The task cannot run inside a test's transaction; in a Celery worker it can."""


class ResultTooLarge(PgbgError):
    """The statement's rows are larger than ``pgbg_max_result_bytes``; it was rolled back."""


class SessionLost(PgbgError):
    """Our session to PostgreSQL died during a call, so its effect is unknown."""
