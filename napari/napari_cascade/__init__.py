"""Cascade in napari: sample data, a reader of its data sets, and a dock widget that fits, generates and exports."""

__version__ = "0.1.0"
