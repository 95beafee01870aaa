"""Messages, mailboxes, and what delivery needs, in PostgreSQL."""
