"""Alembic's entry point. It is only ever run by ``pipeline.catalog.database`` on a connection that it hands in."""

from alembic import context

from pipeline.catalog.models import metadata


def run() -> None:
    connection = context.config.attributes["connection"]
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",  # SQLite changes columns by copying the table
        # The caller holds the transaction, so that the check, all steps and the new revision are one.
        transactional_ddl=False,
    )
    context.run_migrations()


run()
