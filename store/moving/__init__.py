"""Moving a house: all records of a store to another one, and the end of service in the first."""
