"""The extra `web`: pages for people, and HTTP for programs without ZeroMQ (`posthouse web`)."""
