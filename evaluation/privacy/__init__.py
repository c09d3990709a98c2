"""The privacy audit: may a synthetic set, or a generator's weights, leave the house? Bounds by measurement, in words.

`evaluation.audit` and `evaluation.pool` are its ways in. It judges volumes and numbers handed to it; it knows no
model, file or layout. A pass bounds what was tried here, and is no formal (DP) guarantee.
"""
