"""Workflows in PostgreSQL."""
