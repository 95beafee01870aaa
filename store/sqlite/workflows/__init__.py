"""Definitions, runs and steps of workflows as rows."""
