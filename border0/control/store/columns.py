"""What the tables of the schema are made of: column kinds, keys, and constraints' names."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKeyConstraint,
    Integer,
    Text,
)

NAMES = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s__%(column_0_N_name)s",
    "fk": "fk_%(table_name)s__%(column_0_N_name)s",
    "ix": "ix_%(table_name)s__%(column_0_N_name)s",
    "ck": "ck_%(table_name)s__%(constraint_name)s",
}
"""How constraints are called: the same on both databases."""


def text_column(name: str, *, null: bool = False) -> Column[str]:
    """A text."""
    return Column(name, Text, nullable=null)


def time_column(name: str, *, null: bool = False) -> Column[float]:
    """Seconds since 1970."""
    return Column(name, Double, nullable=null)


def flag_column(name: str) -> Column[bool]:
    """True or false."""
    return Column(name, Boolean, nullable=False)


def json_column(name: str) -> Column[object]:
    """A structured value."""
    return Column(name, JSON, nullable=False)


def number_column(name: str, *, null: bool = False) -> Column[int]:
    """An integer of 64 bits."""
    return Column(name, BigInteger, nullable=null)


def key_column(name: str) -> Column[str]:
    """A text that is part of the primary key."""
    return Column(name, Text, primary_key=True)


def versioned() -> tuple[Column[int], Column[float], Column[float]]:
    """The optimistic version, and when the row was made and changed."""
    version = Column("version", Integer, nullable=False)
    return version, time_column("created"), time_column("updated")


def belongs(column: str, table: str, *, cascade: bool = False) -> ForeignKeyConstraint:
    """This row's `column` names a row of the same organisation."""
    action = "CASCADE" if cascade else None
    return ForeignKeyConstraint(["org", column], [f"{table}.org", f"{table}.id"], ondelete=action)


def own() -> ForeignKeyConstraint:
    """The row belongs to an organisation."""
    return ForeignKeyConstraint(["org"], ["organisations.id"])
