"""A second set of labelled pictures, on which every arm of an image comparison is judged too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jepalab.data.sprites import Split
from jepalab.instruments.labelled import LabelledSubject
from jepalab.instruments.transfer import transfer
from jepalab.recipes.idle_flags import refuse_idle_flags
from jepalab.recipes.image_bench import Pictures
from jepalab.recipes.lab_costs import Further, num_labelled


@dataclass(frozen=True)
class OtherPictures:
    """Where the second set comes from.

    Args:
        transfer: a second set of labelled pictures, in any form that `data` takes: every arm's frozen encoder is read
            out on it as well, with its own labels and splits. Nothing trains on it but the read-outs.
        transfer_labels: a CSV of file,label for it; otherwise its labels come from sub-folders or its own column.
        transfer_label_column: of that CSV or of parquet, where it is called otherwise than usual.
    """

    transfer: Path | None = None
    transfer_labels: Path | None = None
    transfer_label_column: str | None = None

    def pictures(self, trained_on: Pictures) -> Pictures | None:
        """They, in the size that the encoders read and known by their content; None where there are none.

        ValueError where they have no two classes, or labels without pictures.
        """
        if self.transfer is None:
            refuse_idle_flags(self, ("transfer_labels", "transfer_label_column"), because="without --transfer")
            return None
        found = Pictures(
            data=self.transfer,
            labels=self.transfer_labels,
            label_column=self.transfer_label_column,
            size=trained_on.size,
            cache=trained_on.cache,
        ).named()
        if found.open().num_classes < 2:
            raise ValueError(
                f"There are labels of {found.open().num_classes} class(es) in {self.transfer}, and without two nothing "
                "can be judged there: sort it into sub-folders, or name a CSV with --transfer-labels."
            )
        return found


NOWHERE = OtherPictures()


def judged_there(pictures: Pictures, *, num_samples: Mapping[Split, int]) -> Further:
    """The encoder that stands for its arm read out on these pictures as well, and how many that are."""
    num_read = sum(num_labelled(pictures.open(), num_samples).values())
    return Further(partial(_transfer_to, pictures=pictures, num_samples=num_samples), num_read=num_read)


def _transfer_to(subject: LabelledSubject, *, pictures: Pictures, num_samples: Mapping[Split, int]) -> dict[str, float]:
    return transfer(subject, images=pictures.open(), num_samples=num_samples)
