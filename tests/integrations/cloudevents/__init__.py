"""CloudEvents, by their specification alone."""
