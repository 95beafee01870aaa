"""What is stored, and what a store can do: records, changes, rules and the ports that a store implements. Pure."""
