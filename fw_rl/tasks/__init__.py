"""Tasks of the two papers: data, models, and the measurements on them."""
