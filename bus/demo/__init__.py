"""`posthouse demo`: bots that talk through a worker, which is killed meanwhile."""
