"""Schema changes, numbered and append-only: a published one is never edited.

``REVISIONS`` lists them in order. Opening a catalog compares its revision with the last without importing Alembic,
which is needed only when there is something to apply.
"""

REVISIONS = ("0001", "0002", "0003")
