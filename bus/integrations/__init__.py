"""What other libraries keep and do with the bus: an extra for each, imported by nobody but its user."""
