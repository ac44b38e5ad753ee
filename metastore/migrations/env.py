"""What Alembic runs to migrate: on the connection it is given, in that connection's transaction."""

from alembic import context

from metastore.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
