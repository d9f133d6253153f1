"""jepalab: does predicting embeddings beat predicting raw outputs, on your data, and why?

Importing the package imports nothing heavy; import what you use, for example
``from jepalab.objectives.vicreg_jepa import VICRegJEPA``.
"""

__version__ = "0.1.0"
