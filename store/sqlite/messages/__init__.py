"""The log, mailboxes, subscriptions and conversations as rows."""
