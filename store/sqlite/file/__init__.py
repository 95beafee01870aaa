"""The database file: its lock, its connections, its one writer, its log and its schema."""
