"""The trained network: predicts tokens from tokens; nothing specific to Gaia."""
