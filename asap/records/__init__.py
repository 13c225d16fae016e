"""What is written down: the records' schemas and the folder that keeps them."""
