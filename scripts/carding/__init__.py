"""What a model card says in numbers: the measurements behind it, their plots, and the tables made of them."""
