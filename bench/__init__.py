"""Benchmarks of a worker as it is shipped: what each one measures, and why so, is in bench/README.md.

They are run from a clone and are not in the wheel. Nothing here is imported by `bus`, `store` or `worker`.
"""

__all__ = []
