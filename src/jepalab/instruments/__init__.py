"""Instruments judge frozen embeddings: the same code for every objective, on splits it was not trained on."""
