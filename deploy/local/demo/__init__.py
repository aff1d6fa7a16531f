"""The demo: a year of shopping replayed over HTTP, with the ranking scored on every basket to come."""
