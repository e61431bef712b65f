"""Models of the zoo priced, and the scaling study. May import evaluation and below."""
