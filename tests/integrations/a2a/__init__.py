"""Agents of A2A, with the SDK's own client."""
