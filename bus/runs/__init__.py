"""Executing workflows in a bot: runs, steps, approvals and commits."""
