"""The generative half: generate, inpaint, embed, infer."""
