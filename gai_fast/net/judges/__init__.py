"""Judges of texts: moderations, web hooks and functions of the operator's."""
