"""Pushes of one commit are one row; events are found by index through their numbers, which grow with it."""

from typing import Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0002"
down_revision: Final = "0001"

_NUMBER: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Takes over the pushes that are due, as if one commit had made them."""
    op.drop_index("ix_events_modified_index_number", "events")
    op.drop_index("ix_events_allocation_number", "events")
    op.create_table(
        "pushes",
        sa.Column("number", _NUMBER, autoincrement=False, nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_pushes"),
    )
    op.execute(
        "INSERT INTO pushes (number, body) SELECT min(number), "
        "json_group_array(json_array(node_id, allocation_id, kind)) FROM (SELECT * FROM outbox ORDER BY number) "
        "HAVING count(*) > 0"
    )
    op.drop_table("outbox")
