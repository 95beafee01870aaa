"""What both ends of a connection agree on: frames, codes, calls, bodies. Documented in `docs/protocol.md`. Pure."""
