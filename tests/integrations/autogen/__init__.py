"""A team of AutoGen, with the real library."""
