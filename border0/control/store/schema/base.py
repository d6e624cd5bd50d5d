"""The collection that all tables are in."""

from sqlalchemy import MetaData

from border0.control.store.columns import NAMES

metadata = MetaData(naming_convention=NAMES)
PASSING = "passing"
"""In a table's `info`: what it holds lives for hours at most and is in no backup."""
