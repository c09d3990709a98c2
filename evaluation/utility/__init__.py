"""Downstream utility: does a network trained with the synthetic set do better on real patients never trained on?

Arms differ in their training volumes alone: network, steps, schedule and tuning are the same. This room knows
volumes, arms and statistics; it knows no generator, no command line and no dataset layout but nnU-Net's summary.json.

>>> from evaluation.utility import UtilityConfig
>>> [job.name for job in UtilityConfig(arms=("R", "RS"), seeds=(0,)).jobs()]
['segmentation_R_real100_seed0', 'segmentation_RS_real100_all_seed0']
"""

from evaluation.utility.config import ARMS, Job, UtilityConfig

__all__ = ["ARMS", "Job", "UtilityConfig"]
