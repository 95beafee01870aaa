"""What is kept, and what keeps it can do: records, changes, rules and the ports that a store implements. Pure."""
