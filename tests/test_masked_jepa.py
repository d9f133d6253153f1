"""I-JEPA and its relatives against their equations in float64, and the properties that keep them honest.

The encoder is held against transformers.IJepaModel in test_hub.py (test_transformers_computes_what_our_encoder_does).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch
from references64 import Predictor64, ViT64, agree, covariance64, layer_norm64, lively, sigreg64, variance64
from torch import Tensor, nn

from jepalab.auditing import audit_objective, differences
from jepalab.backbones.attention import Transformer
from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.teachers import EMATeacher, FrozenTeacher, OwnTeacher, Teacher
from jepalab.backbones.vit import ViT
from jepalab.data.augment import Crop
from jepalab.fit import fit
from jepalab.instruments.geometry import collapse_meters
from jepalab.losses import distances
from jepalab.losses.distances import Distance, mean_absolute, mean_squared, smooth_l1
from jepalab.losses.regularisers import Gaussianity, VarianceCovariance
from jepalab.losses.sigreg import SIGReg
from jepalab.losses.targets import MeanOfLevels, SeveralLevels, Targets, output_level
from jepalab.masks import drawing
from jepalab.masks.blocks import Blocks
from jepalab.masks.random import RandomMask
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.progress import COLLAPSED_STD, Moment
from jepalab.run import Run
from jepalab.types import Batch, Mask, MaskSampler, Objective, Space
