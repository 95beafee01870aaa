"""A team of three agents that plan, look things up and write. See docs/team.md."""
