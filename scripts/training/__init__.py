"""What the training of the bundled model is made of: data, drawn pictures, made-up clips."""
