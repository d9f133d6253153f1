"""What is said beside scores: settings at an edge of their grid, and how many labels each read-out learned from."""

from __future__ import annotations

from typing import Any

from jepalab.compare.caveats import edges, label_counts, machines
from jepalab.compare.metrics import RECOGNITION


def cells(*metrics: dict[str, float], arm: str = "J1", condition: str = "pictures") -> list[dict[str, Any]]:
    return [{"arm": arm, "condition": condition, "seed": seed, "metrics": m} for seed, m in enumerate(metrics)]


def test_read_out_edge_and_arms_are_named_with_how_many_of_their_runs_chose_so() -> None:
    chosen = [
        *cells({"linear_lambda_edge": -1.0}, {"linear_lambda_edge": 0.0}, {"linear_lambda_edge": -1.0}),
        *cells({"linear_lambda_edge": -1.0, "attentive_rate_edge": 1.0, "teacher/linear_lambda_edge": 1.0}, arm="G1"),
        *cells({}, arm="S"),
    ]
    (note,) = edges(chosen, RECOGNITION)
    assert note.endswith(": attentive rate, highest: G1 1/1; linear lambda, lowest: J1 2/3, G1 1/1.")


def test_conditions_are_counted_together() -> None:
    both = [*cells({"linear_lambda_edge": 1.0}), *cells({"linear_lambda_edge": 0.0}, condition="noisy")]
    (note,) = edges(both, RECOGNITION)
    assert note.endswith(": linear lambda, highest: J1 1/2.")


def test_nothing_is_said_without_an_edge_or_where_none_was_recorded() -> None:
    assert edges(cells({"linear_lambda_edge": 0.0}), RECOGNITION) == []
    assert edges(cells({"linear": 0.5, "linear_lambda": 0.01}), RECOGNITION) == []


def test_read_outs_are_grouped_by_their_number_of_labels() -> None:
    counts = {"linear_labels": 45_000.0, "knn_labels": 45_000.0, "attentive_labels": 4_000.0}
    fewer = counts | {"attentive_labels": 1_270.0}
    text = label_counts([*cells(counts), *cells(fewer, arm="G1")], RECOGNITION)
    assert text == (
        "Labels that each read-out learned from: 45,000 for linear accuracy, kNN accuracy; 1,270 to 4,000 for "
        "attentive accuracy. Unequal numbers are no comparison of read-outs."
    )
    assert label_counts(cells({"linear": 0.5, "shot_all_labels": 9.0}), RECOGNITION) == ""


def on(machine: str, computed_in: str) -> dict[str, Any]:
    return {"metrics": {}, "compute": {"machine": machine, "computed_in": computed_in}}


def test_several_machines_or_precisions_are_told_with_their_runs() -> None:
    assert machines([on("A", "bf16"), on("A", "bf16"), {"metrics": {}, "compute": {}}, {"metrics": {}}]) == []
    (note,) = machines([on("A", "bf16"), on("B", "fp32"), on("B", "fp32")])
    assert "2 on B, in fp32; 1 on A, in bf16 (runs)" in note
    (note,) = machines([on("A", "bf16"), on("A", "fp32")])
    assert "1 on A, in bf16; 1 on A, in fp32" in note
