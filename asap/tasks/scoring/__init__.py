"""How an answer in words is scored: one rule a file, pure functions of texts."""
