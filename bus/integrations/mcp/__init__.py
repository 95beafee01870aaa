"""The extra `mcp`: a server of the Model Context Protocol, with which assistants are bots (`posthouse mcp`)."""
