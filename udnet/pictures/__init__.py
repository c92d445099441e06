"""Photographs in and out, drawn scenes, and how good a picture is. Rests on system."""
