"""Whether a model's errors hold, and whether its flags tell giants from others."""
