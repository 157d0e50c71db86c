"""One cell, from a resolved config to a line in the journal; knows no task, loss or data set."""
