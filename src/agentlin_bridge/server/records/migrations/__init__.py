"""Alembic scripts of the server's database."""
