"""A bot's side of a connection: its session, what it sends and receives, and how it settles messages."""
