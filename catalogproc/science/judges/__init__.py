"""What proves a model: scores, pictures, real stars with known answers."""
