-- A role and a database for posthouse: once, as a superuser at the primary, with psql's variable `password`.
CREATE ROLE posthouse LOGIN PASSWORD :'password';
CREATE DATABASE house OWNER posthouse ENCODING 'UTF8' TEMPLATE template0;
-- Nobody but its owner connects to it, or creates anything in it.
REVOKE ALL ON DATABASE house FROM PUBLIC;
