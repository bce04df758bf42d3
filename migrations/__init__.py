"""Alembic: every table that flows or people write to, with its rollback."""
