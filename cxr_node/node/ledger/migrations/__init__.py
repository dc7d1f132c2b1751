"""Alembic's room: how the tables of `node.schema` came to be."""
