"""An nnU-Net trainer that puts samples of a Synth model between the real cases. Copy it, set the five names below.

    export nnUNet_extTrainer=/folder/with/this/file          # nnU-Net 2.8 or newer; older: copy it into its trainers
    nnUNetv2_train 501 3d_fullres 0 -tr nnUNetTrainerSynth

Real cases, folds, cropping, oversampling and augmentation stay nnU-Net's. A sample is cropped, normalised and resampled
by nnU-Net's own preprocessor, as a file would be, once, and kept in the buffer. nnU-Net draws its batches at random and
unseeded, so this loop is not repeatable to the byte; which samples a given epoch chooses from is.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from synth.errors import ConfigError
from synth.io import read_header
from synth.stream import Stream
from synth.stream.nnunet import (
    begin_at,
    channel_order,
    drop_before,
    in_file_order,
    kept_or_made,
    locations,
    spacing_zyx,
)

MODEL = "run/model"
"""A model folder. Train it with `synth train --fold k` on nnU-Net's splits: it must not have seen the validation."""
BUFFER = "buffer"
RATIO, REUSE = 0.3, 20
DEVICES: tuple[str, ...] = ("cpu",)
"""Where samples are made; on a machine with several GPUs one that does not train, such as ("cuda:1",)."""


class WithSamples:
    """nnU-Net's training cases, and as many names of samples beside them as make RATIO of all draws."""

    def __init__(self, real, trainer: "nnUNetTrainerSynth") -> None:
        self.real, self.trainer = real, trainer
        count = round(RATIO / (1 - RATIO) * len(real.identifiers))
        self.samples = {f"syn_any_{number:04d}" for number in range(count)}
        self.identifiers = [*real.identifiers, *sorted(self.samples)]

    def load_case(self, identifier: str):
        """Return image, labels, no earlier stage, properties; a sample's name stands for any of the window."""
        if identifier not in self.samples:
            return self.real.load_case(identifier)
        image, labels = self.trainer.preprocessed_sample(float(np.random.uniform()))
        manager = self.trainer.label_manager
        known = list(manager.foreground_labels)
        if manager.has_ignore_label:
            known.append((-1, *manager.all_labels))  # nnU-Net looks for patches that are annotated
        return image, labels, None, {"class_locations": locations(labels, known)}

    def __getitem__(self, identifier: str):
        return self.load_case(identifier)


class nnUNetTrainerSynth(nnUNetTrainer):  # noqa: N801 - nnU-Net finds trainers by such names
    """nnU-Net's trainer with RATIO of its training cases synthetic."""

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net reads this signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.stream: Stream | None = None

    def get_tr_and_val_datasets(self):
        """Return nnU-Net's datasets; validation stays as it is."""
        train, validation = super().get_tr_and_val_datasets()
        if self.stream is None:
            self.stream = self._open(train)
            self.order = channel_order(self.stream.schema.channels, self.dataset_json["channel_names"])
            if self.current_epoch:  # a training that goes on (--c): nothing before it is wanted
                begin_at(self.stream, self.current_epoch)
        return WithSamples(train, self), validation

    def _open(self, train) -> Stream:
        from nnunetv2.paths import nnUNet_raw

        if len(self.configuration_manager.patch_size) != 3 or self.is_cascaded:
            raise ConfigError("nnUNetTrainerSynth trains 3d_fullres and 3d_lowres; take one of these")
        labels = {
            name: value for name, value in self.dataset_json["labels"].items() if name not in ("background", "ignore")
        }
        if any(isinstance(value, Sequence) for value in labels.values()):
            raise ConfigError("nnUNetTrainerSynth takes labels, no regions; write plain labels into dataset.json")
        raw = Path(str(nnUNet_raw)) / self.plans_manager.dataset_name / "imagesTr"
        case = raw / f"{train.identifiers[0]}_0000{self.dataset_json['file_ending']}"
        self.affine = read_header(case).affine
        return Stream(
            MODEL,
            ratio=RATIO,
            reuse=REUSE,
            buffer=BUFFER,
            intensity="native",
            labels=labels,
            masks="generated",
            batch=self.configuration_manager.batch_size,
            epoch_steps=self.num_iterations_per_epoch,
            devices=DEVICES,
            rank=(0, 1),
            produce=self.local_rank == 0,
        )

    def preprocessed_sample(self, share: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the sample at `share` of the window as nnU-Net's preprocessor leaves it; made once, then read."""
        assert self.stream is not None
        number, stored = self.stream.pick(share)

        def make() -> tuple[np.ndarray, np.ndarray]:
            image, labels = in_file_order(stored, self.affine)
            preprocessor = self.configuration_manager.preprocessor_class(verbose=False)
            image, labels, _ = preprocessor.run_case_npy(
                image[self.order],
                labels.astype(np.int16),
                {"spacing": list(spacing_zyx(self.stream.schema, self.affine))},
                self.plans_manager,
                self.configuration_manager,
                self.dataset_json,
            )
            return image, labels

        return kept_or_made(self._kept / f"{number:08d}.safetensors", make)

    @property
    def _kept(self) -> Path:
        assert self.stream is not None
        plans = self.plans_manager
        return self.stream.store.folder / f"nnunet-{plans.dataset_name}-{plans.plans_name}-{self.configuration_name}"

    def on_train_epoch_start(self) -> None:
        """Move the window of samples with nnU-Net's epochs."""
        super().on_train_epoch_start()
        assert self.stream is not None
        self.stream.set_epoch(self.current_epoch)
        wanted = self.stream.store.wanted()
        if wanted is not None and self.local_rank == 0:
            drop_before(self._kept, wanted.first)

    def on_train_end(self) -> None:
        """End the producers with the training."""
        super().on_train_end()
        if self.stream is not None:
            self.stream.close()
