"""How the features of one layer become one number a pair."""
