"""One mailbox: its waiting messages, its messages in flight, and the sessions that receive them. Pure."""
