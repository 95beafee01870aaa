"""Checkpoints of workflows beside other systems: what is measured, and why so, is in bench/README.md.

Nothing here needs another system's package before that system is measured.
"""

__all__ = []
