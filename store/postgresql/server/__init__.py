"""The connections to PostgreSQL: who may write, what may be believed, and which schema is there."""
