"""Files of compressed tokens: what `compress` leaves and `run --tokens` takes up again."""
