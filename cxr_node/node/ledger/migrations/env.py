"""Run by Alembic inside the transaction that `ledger.database` opened; a broken migration leaves nothing behind."""

from __future__ import annotations

from alembic import context

from cxr_node.node.ledger.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
