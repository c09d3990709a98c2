"""Interop: foreign solvers and checkpoints, each through one adapter. Libraries load where they are used."""
