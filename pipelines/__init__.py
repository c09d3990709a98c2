"""Verbs of the command line: parse, wire, call. No maths; heavy imports only inside `.run()`."""
