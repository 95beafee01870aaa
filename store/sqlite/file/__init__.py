"""The database file: its lock, its connections, its one writer, its write-ahead log and its schema."""
