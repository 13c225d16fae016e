"""Tasks: what an example is, how features become answers, how answers are scored."""
