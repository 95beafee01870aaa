"""The commands for people, but for those of the worker."""
