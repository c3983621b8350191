"""The trained model: tokens in, tokens out. It knows nothing of Gaia."""
