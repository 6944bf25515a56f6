"""From arrays to numbers: confusion matrices, tables, average precision, superpixel scores."""
