"""The pipeline's consumer: takes runs, keeps them its own while it works on them, and ends them."""
