"""The trained model, and nothing of Gaia: tokens in, tokens out."""
