"""What was sampled, in the forms in which others read it."""
