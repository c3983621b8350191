"""From predictions to a table that can be trusted."""
