"""The declarations of the event types, by area; `audit.events` puts them together."""
