"""The collection that all tables are in."""

from sqlalchemy import MetaData

from border0.control.store.columns import NAMES

metadata = MetaData(naming_convention=NAMES)
