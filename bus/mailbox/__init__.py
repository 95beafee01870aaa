"""One mailbox: what waits in it, what is in flight, and for which sessions. Pure."""
