"""Live streams on Ray: an actor for each stream, shared encoders, and the process that writes down what they give."""
