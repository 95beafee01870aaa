"""What both ends of a connection agree on: frames, codes, calls, bodies. `docs/protocol.md` is its page. Pure."""
