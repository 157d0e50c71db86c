"""How well distances agree with people: plain functions of numbers, with intervals and comparisons."""
