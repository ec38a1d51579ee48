"""Classifiers trained on real clips alone, which say what a clip shows."""

from .verdicts import MEASURES, Judges, Verdict, accuracies, load_judges

__all__ = ["MEASURES", "Judges", "Verdict", "accuracies", "load_judges"]
