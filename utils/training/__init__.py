"""The training loop, its optimisers, and the recipe of each stage."""
