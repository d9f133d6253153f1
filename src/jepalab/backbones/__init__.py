"""Networks that turn observations into embeddings, and the parts they share."""
