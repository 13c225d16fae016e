"""Published benchmarks of questions: their numbers beside the paper's, and one table over them."""
