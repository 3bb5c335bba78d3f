"""Sources read one thing each, and say in a `Reading` what came of it; unknown is never 0."""
