"""OpenTelemetry's SDK, with exporters in memory."""
