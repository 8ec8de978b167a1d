"""Whole models: fourteen programs, each one file for Treadle and PyTorch, beside their peers.

``report.py`` runs in the process of ``python -m bench``; everything else also runs in processes
that have no Treadle (``worker.py``), and imports none of it.
"""
