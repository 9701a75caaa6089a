"""The set-up of an adaptive step."""
