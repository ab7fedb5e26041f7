"""The supervised experiments of the papers: data, nets, training, and tables beside the papers' numbers."""
