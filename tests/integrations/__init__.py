"""Extras for other libraries, each tested against the real one."""
