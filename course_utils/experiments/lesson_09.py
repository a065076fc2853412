"""What lesson 09 measures."""

from course_utils.experiments import Experiment

EXPERIMENTS: dict[str, Experiment] = {}
