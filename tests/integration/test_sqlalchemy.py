"""Statements of SQLAlchemy Core as tasks, beside SQLAlchemy's own engine on the same database."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from celery import Celery
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from celery_pgbg import SQLTask
from celery_pgbg.errors import BindingError, TaskDefinitionError
from celery_pgbg.runners import close_runners

metadata = sa.MetaData()


class Cents(sa.TypeDecorator[decimal.Decimal]):
    """An amount that is stored in cents."""

    impl = sa.Integer
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return None if value is None else int(value * 100)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return None if value is None else decimal.Decimal(value) / 100


class Joined(sa.TypeDecorator[list[str]]):
    """Words that are stored as one text."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        return value and "%".join(value)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value and value.split("%")


class Color(enum.Enum):
    RED = 1
    DARK_BLUE = 2


items = sa.Table(
    "sa_items",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("price", Cents),
    sa.Column("words", Joined),
    sa.Column("name", sa.String(30), default="unnamed"),
    sa.Column("code", sa.Text, default=lambda: "made"),
    sa.Column("copied", sa.Text, default=lambda context: f"{context.get_current_parameters()['name']}!"),
    sa.Column("touched", sa.Integer, default=0, onupdate=7),
    sa.Column("squared", sa.Integer, default=sa.select(sa.literal(9)).scalar_subquery()),
    sa.Column("server", sa.Text, server_default="server's"),
    sa.Column("doc", sa.JSON),
    sa.Column("docb", pg.JSONB),
    sa.Column("span", pg.INT4RANGE),
    sa.Column("days", pg.DATEMULTIRANGE),
    sa.Column("tags", pg.ARRAY(sa.Text)),
    sa.Column("amount", sa.Numeric(12, 3)),
    sa.Column("ratio", sa.Numeric(asdecimal=False)),
    sa.Column("weight", sa.Float(asdecimal=True)),
    sa.Column("day", sa.Date),
    sa.Column("at", sa.DateTime(timezone=True)),
    sa.Column("took", sa.Interval),
    sa.Column("key", sa.Uuid),
    sa.Column("keytext", sa.Uuid(as_uuid=False)),
    sa.Column("blob", sa.LargeBinary),
    sa.Column("flag", sa.Boolean),
    sa.Column("color", sa.Enum(Color, name="sa_color")),
    sa.Column("pairs", pg.HSTORE),
    sa.Column("address", pg.INET),
)
c = items.c


class Base(DeclarativeBase):
    metadata = metadata


class Note(Base):
    __tablename__ = "sa_notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(Joined, default=lambda: ["of", "orm"])


AT = datetime.datetime(2026, 5, 4, 3, 2, 1, tzinfo=datetime.timezone.utc)
KEY = uuid.UUID(int=5)
D = decimal.Decimal

STATEMENTS: dict[str, Callable[[], Any]] = {
    "all": lambda: sa.select(items).order_by(c.id),
    "some": lambda: sa.select(c.id, c.price, c.words).order_by(c.id),
    "where a decorated type": lambda: sa.select(c.id).where(c.price == D("1.25")),
    "where a decorated type in": lambda: sa.select(c.id).where(c.price.in_([D("1.25"), D("2.50")])).order_by(c.id),
    "in nothing": lambda: sa.select(c.id).where(c.id.in_([])),
    "not in": lambda: sa.select(c.id).where(c.id.not_in([1])).order_by(c.id),
    "tuples": lambda: sa.select(c.id).where(sa.tuple_(c.id, c.name).in_([(1, "one"), (2, "x")])),
    "per cent": lambda: sa.select(c.id, sa.literal("100%").label("p")).where(c.name.like("%n%")).order_by(c.id),
    "modulo": lambda: sa.select((c.id % 2).label("odd")).order_by(c.id),
    "escapes": lambda: sa.select(
        sa.literal("a\\b'c", literal_execute=True).label("a"), sa.literal(":x %(y)s").label("b")
    ),
    "a text": lambda: sa.text("SELECT '50%' AS p, id FROM sa_items WHERE id = :id").bindparams(id=1),
    "a text with types": lambda: sa.text("SELECT price FROM sa_items ORDER BY id").columns(price=Cents),
    "functions": lambda: sa.select(sa.func.count().label("n"), sa.func.max(c.amount).label("m")).select_from(items),
    "a decorated sum": lambda: sa.select(sa.type_coerce(sa.func.max(c.price), Cents).label("m")),
    "cast": lambda: sa.select(sa.cast("12.5", sa.Numeric(5, 2)).label("n"), sa.cast(3, sa.Float).label("f")),
    "json": lambda: sa.select(c.doc["a"].label("a"), c.docb["l"][0].as_integer().label("l")).order_by(c.id),
    "json contains": lambda: sa.select(c.id).where(c.docb.contains({"b": True})),
    "json null": lambda: sa.insert(items).values(doc=None, docb=sa.JSON.NULL).returning(c.doc, c.docb),
    "range": lambda: sa.select(c.id).where(c.span.contains(4)),
    "range parameter": lambda: sa.select(c.id).where(c.span.overlaps(pg.Range(1, 3))),
    "array": lambda: sa.select(c.id).where(c.tags.contains(["a"])),
    "any": lambda: sa.select(c.id).where(sa.any_(c.tags) == "b"),
    "empty array": lambda: sa.select(sa.cast(pg.array([], type_=sa.Integer), pg.ARRAY(sa.Integer)).label("a")),
    "enum": lambda: sa.select(c.id).where(c.color == Color.DARK_BLUE),
    "interval": lambda: sa.select(c.id).where(c.took > datetime.timedelta(minutes=1)),
    "uuid": lambda: sa.select(c.key, c.keytext).where(c.key == KEY),
    "bytes": lambda: sa.select(c.blob).where(c.blob == b"a\0b"),
    "timestamps": lambda: sa.select(c.at, c.day).where(c.at == AT),
    "cte": lambda: sa.select(items.select().cte("x").c.price).limit(1),
    "union": lambda: sa.union_all(sa.select(c.price), sa.select(c.price)).order_by("price"),
    "values": lambda: sa.select(
        sa.values(sa.column("a", sa.Integer), sa.column("b", Cents)).data([(1, D(2))]).alias("v")
    ),
    "window": lambda: sa.select(c.id, sa.func.row_number().over(order_by=c.id.desc()).label("r")).order_by(c.id),
    "limit": lambda: sa.select(c.id).order_by(c.id).limit(1).offset(1),
    "exists": lambda: sa.select(sa.exists().where(c.id == 1).label("e")),
    "insert": lambda: sa.insert(items).values(price=D("9.99"), words=["x", "y"]),
    "insert and return": lambda: (
        sa.insert(items)
        .values(price=D("9.99"), name="n")
        .returning(c.price, c.name, c.code, c.copied, c.touched, c.squared, c.server)
    ),
    "insert several": lambda: (
        sa.insert(items)
        .values([{"price": D("1.01"), "name": "a"}, {"price": D("1.02"), "name": "b"}])
        .returning(c.price, c.name, c.code, c.squared)
    ),
    "insert all types": lambda: (
        sa.insert(items).values(**ROW).returning(*(column for column in c if column is not c.id))
    ),
    "insert from select": lambda: (
        sa.insert(items).from_select(["price"], sa.select(c.price)).returning(c.price, c.code)
    ),
    "insert nothing": lambda: sa.insert(items).returning(c.name, c.code),
    "update": lambda: sa.update(items).where(c.id == 1).values(price=D("3.00")),
    "update and return": lambda: sa.update(items).values(words=["z"]).where(c.id == 2).returning(c.words, c.touched),
    "update by expression": lambda: sa.update(items).values(amount=c.amount + 1).returning(c.amount),
    "delete": lambda: sa.delete(items).where(c.id == 2),
    "delete and return": lambda: sa.delete(items).where(c.id == 2).returning(c.words),
    "on conflict": lambda: (
        pg.insert(items)
        .values(id=1, price=D("5.00"))
        .on_conflict_do_update(index_elements=["id"], set_={"price": D("6.00")})
        .returning(c.price)
    ),
    "orm": lambda: sa.select(Note).order_by(Note.id),
    "orm insert": lambda: sa.insert(Note).values(id=50).returning(Note.text),
}

ROW = {
    "price": D("7.50"), "words": ["a", "b"], "name": "three", "doc": {"a": [1, None, "é"], "b": {}},
    "docb": [1, {"x": 1.5}],
    "span": pg.Range(1, 5), "days": [pg.Range(datetime.date(2026, 1, 1), datetime.date(2026, 2, 1))],
    "tags": ["a", "b,c"],
    "amount": D("12.345"), "ratio": 0.5, "weight": 1.25, "day": datetime.date(2026, 1, 2), "at": AT,
    "took": datetime.timedelta(days=1, seconds=2), "key": KEY, "keytext": str(KEY), "blob": b"a\0b", "flag": True,
    "color": Color.DARK_BLUE, "pairs": {"k": "v", "n": None}, "address": "10.0.0.1",
}  # fmt: skip


@pytest.fixture(scope="module")
def engine(dsn: str) -> Iterator[sa.Engine]:
    url = dsn.replace("postgresql://", "postgresql+psycopg://")
    # As in a task: hstore is psycopg's business where it knows the type.
    made = sa.create_engine(url, connect_args={"options": "-c timezone=UTC"}, use_native_hstore=False)
    with made.begin() as connection:
        connection.execute(sa.text("CREATE EXTENSION IF NOT EXISTS hstore"))
        metadata.create_all(connection)
        connection.execute(
            sa.insert(items).values(id=1, **{**ROW, "price": D("1.25"), "name": "one", "docb": {"b": True, "l": [4]}})
        )
        connection.execute(sa.insert(items).values(id=2, price=D("2.50"), words=["w"]))
        connection.execute(sa.text("SELECT setval('sa_items_id_seq', 100)"))
        connection.execute(sa.insert(Note).values(id=1))
    yield made
    with made.begin() as connection:
        metadata.drop_all(connection)
    made.dispose()


@pytest.fixture(scope="module")
def app(dsn: str) -> Iterator[Celery]:
    made = Celery("sqlalchemy", broker="memory://", backend="cache+memory://", set_as_current=False)
    made.conf.pgbg_dsn = dsn

    @made.task(base=SQLTask, name="run")
    def run(statement: Any, a: Any = None) -> Any:
        return statement

    @made.task(base=SQLTask, name="value", returns="value")
    def value(statement: Any) -> Any:
        return statement

    yield made
    close_runners(made)


def _by_engine(engine: sa.Engine, statement: Any, **parameters: Any) -> Any:
    """What an engine gives, undone again."""
    with engine.connect() as connection:
        result = connection.execute(statement, parameters, execution_options={"preserve_rowcount": True})
        value = [dict(row) for row in result.mappings()] if _returns_rows(statement) else result.rowcount
        connection.rollback()
    return value


def _returns_rows(statement: Any) -> bool:
    """What SQLAlchemy adds to an INSERT, the RETURNING of its key, does not count."""
    return not isinstance(statement, sa.UpdateBase) or bool(list(statement.exported_columns))


def _normal(value: Any) -> Any:
    """An Enum comes back as its label; the engine's hstore comes from text in both."""
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items()}
    return value.name if isinstance(value, enum.Enum) else value


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_task_gives_what_an_engine_gives(app: Celery, engine: sa.Engine, name: str) -> None:
    statement = STATEMENTS[name]()
    expected = _by_engine(engine, statement)
    with engine.connect() as connection:
        # A background worker cannot undo it, so what it changes is put back.
        before = [dict(row) for row in connection.execute(sa.select(items)).mappings()]
    got = app.tasks["run"](statement)
    assert _types(got) == _types(_normal(expected))
    with engine.begin() as connection:
        connection.execute(sa.delete(items))
        connection.execute(sa.insert(items), before)
        connection.execute(sa.delete(Note).where(Note.id == 50))


def _types(value: Any) -> Any:
    """A value with its types, since 1 == 1.0 == Decimal(1)."""
    if isinstance(value, list):
        return [_types(item) for item in value]
    if isinstance(value, dict):
        return {key: _types(item) for key, item in value.items()}
    return type(value).__name__, str(value)


def test_definitions_of_tables_are_statements_too(app: Celery, engine: sa.Engine) -> None:
    table = sa.Table("sa_made", sa.MetaData(), sa.Column("a", Cents))
    app.tasks["run"](sa.schema.CreateTable(table))
    assert app.tasks["run"](sa.insert(table).values(a=D(1)).returning(table.c.a)) == [{"a": D(1)}]
    app.tasks["run"](sa.schema.DropTable(table))


def test_a_value_alone_is_read_too(app: Celery, engine: sa.Engine) -> None:
    assert app.tasks["value"](sa.select(c.price).where(c.id == 1)) == D("1.25")


def test_parameters_without_a_value_are_the_tasks_arguments(app: Celery, engine: sa.Engine) -> None:
    statement = sa.select(c.id).where(c.price == sa.bindparam("a"))
    assert app.tasks["run"](statement, a=D("1.25")) == [{"id": 1}]
    assert app.tasks["run"](sa.text("SELECT CAST(:a AS int) AS a"), a=4) == [{"a": 4}]
    with pytest.raises(BindingError, match="'b'"):
        app.tasks["run"](sa.select(sa.bindparam("b")))


def test_parameters_of_the_statements_own(app: Celery, engine: sa.Engine) -> None:
    assert app.tasks["run"]((sa.text("SELECT :x || '!' AS x"), {"x": "a"})) == [{"x": "a!"}]
    with pytest.raises(BindingError, match="dict"):
        app.tasks["run"]((sa.text("SELECT :x"), [{"x": 1}, {"x": 2}]))


class TestWhatIsNotSupported:
    def test_a_default_that_needs_a_statement_of_its_own(self, app: Celery) -> None:
        def count(context: Any) -> Any:
            return context.connection.execute(sa.select(sa.func.count()).select_from(items)).scalar()

        table = sa.Table("t", sa.MetaData(), sa.Column("n", sa.Integer, default=count), sa.Column("m", sa.Integer))
        with pytest.raises(TaskDefinitionError, match=r"another statement first.*count"):
            app.tasks["run"](sa.insert(table).values(m=1))

    def test_a_value_that_its_type_refuses(self, app: Celery) -> None:
        with pytest.raises(BindingError, match="invalid literal"):
            app.tasks["run"](sa.insert(items).values(price="x"))

    def test_what_cannot_be_compiled(self, app: Celery) -> None:
        with pytest.raises(TaskDefinitionError, match="cannot compile"):
            app.tasks["run"](sa.insert(items).values(nowhere=1))
