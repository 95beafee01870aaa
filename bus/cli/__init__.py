"""The commands for people, except those of the worker."""
