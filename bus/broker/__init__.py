"""The shell around the core: sockets, the store, the clock and the log. It waits, and decides nothing."""
