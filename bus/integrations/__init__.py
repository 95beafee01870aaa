"""Other libraries' worlds, over a bot: each module is an extra, and nothing else imports it."""
