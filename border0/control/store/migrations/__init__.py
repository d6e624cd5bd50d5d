"""The history of the schema: one module for each revision, run in order by Alembic."""
