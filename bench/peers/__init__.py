"""The systems that posthouse is set against: how each is started fresh, and what its clients do.

Nothing here needs its client library before it is used: a module of this package can be imported without it.
"""

__all__ = []
