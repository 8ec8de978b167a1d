"""Treadle: a deep learning framework. (Under construction: see docs/architecture.md.)"""
