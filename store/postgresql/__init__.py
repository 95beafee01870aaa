"""The PostgreSQL backend: one writer, fenced, whose commits wait for a standby where the server has one."""
