"""The broker's decisions: events and times in, effects out. Pure."""
