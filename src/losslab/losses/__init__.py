"""Everything that turns two batches of images into one number a pair."""
