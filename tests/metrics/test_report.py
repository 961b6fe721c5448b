"""A report keeps its protocol, adds, and says what is not defined."""

import dataclasses
import json

import numpy as np
import pytest

from ismallnet.metrics import PROTOCOLS, ImageCount, Report, count_image


def report(protocol: str = "standard", *, n: int = 6, first: int = 0, **changes) -> Report:
    rng = np.random.default_rng(first)
    counts = []
    for index in range(first, first + n):
        truth, prediction = np.zeros((2, 30, 30), bool)
        y, x = rng.integers(2, 25, 2)
        truth[y : y + 3, x : x + 3] = True
        prediction[y : y + 3, x : x + int(rng.integers(1, 5))] = True
        counts.append(
            count_image(
                prediction,
                truth,
                protocol=PROTOCOLS[protocol],
                data=changes.get("data", "toy"),
                id=f"i{index}",
                image=rng.normal(100, 9, (30, 30)),
                score=prediction.astype(np.float32),
            )
        )
    fields = {
        "detector": "d",
        "rule": "score > 0.5",
        "protocol": PROTOCOLS[protocol],
        "data": "toy",
        "split": "train",
        "split_sha256": "ab12",
        "counts": tuple(counts),
        "provenance": {"date": "2026-01-01", "commit": "c0ffee"},
    }
    return Report(**(fields | changes))


def test_json_carries_the_protocol_with_every_parameter_and_all_counts():
    stored = json.loads(report(bootstrap=20).to_json())
    assert stored["protocol"].keys() == {field.name for field in dataclasses.fields(PROTOCOLS["standard"])}
    assert stored["protocol"]["name"] == "standard"
    assert stored["n"] == len(stored["counts"]) == 6
    expected = {
        "detector",
        "rule",
        "data",
        "split",
        "split_sha256",
        "bootstrap",
        "seed",
        "provenance",
        "rates",
    }
    assert expected <= stored.keys()
    assert sum(image["tp"] for image in stored["counts"]) / sum(
        image["tp"] + image["fp"] + image["fn"] for image in stored["counts"]
    ) == pytest.approx(stored["rates"]["iou"]["value"])


def test_markdown_names_protocol_list_and_provenance():
    text = report(bootstrap=20).to_markdown()
    for word in ("protocol `standard`", "matching bipartite", "ab12", "c0ffee", "20 replicates", "| Pd |"):
        assert word in text


def test_reports_add_as_if_the_images_had_been_counted_together():
    a, b = report(n=3), report(n=5, first=3, split_sha256="cd34")
    together = a + b
    assert together.rates.overall == dataclasses.replace(a, counts=a.counts + b.counts).rates.overall
    assert len(together.counts) == 8
    assert together.split_sha256 == "ab12 + cd34"
    assert together.provenance["parts"] == [a.provenance, b.provenance]
    assert len((together + report(n=2, first=20)).provenance["parts"]) == 3


def test_a_name_with_a_plus_survives_addition():
    fold = report(detector="ismallnet-unet++"), report(first=6, detector="ismallnet-unet++")
    assert (fold[0] + fold[1]).detector == "ismallnet-unet++"


def test_reports_of_two_protocols_do_not_add():
    with pytest.raises(ValueError, match="'standard' and 'dnanet' do not add"):
        report() + report("dnanet", first=30)


def test_an_image_is_not_counted_twice():
    with pytest.raises(ValueError, match="3 images are in both reports"):
        report(n=6) + report(n=4, first=3)


def test_the_headline_averages_as_the_protocol_does():
    assert report().headline["iou"] == report().rates.overall["iou"]
    assert report("ismallnet").headline["iou"] == report("ismallnet").rates.overall["mean_iou"]
    assert report("ismallnet").headline["f1"] == report("ismallnet").rates.overall["f1_of_means"]


def test_misc_111_costs_one_extra_line():
    named = report(data="NUAA-SIRST")
    odd = dataclasses.replace(named.counts[0], id="Misc_111", tp=0, fp=50, fn=9)
    with_it = dataclasses.replace(named, counts=(odd, *named.counts[1:]))
    assert len(with_it.counts) == 6
    extra = [row for row in with_it.rows() if "without Misc_111" in row[0]]
    clean = dataclasses.replace(named, counts=named.counts[1:])
    assert [row[1] for row in extra] == [row[1] for row in clean.rows() if row[0] == "IoU (pooled)"]
    assert with_it.to_dict()["without_doubtful"]["n"] == 5
    assert not any("without" in row[0] for row in named.rows())


def test_undefined_rates_are_null_in_json_and_explained():
    empty = np.zeros((8, 8), bool)
    nothing = report(
        counts=(count_image(empty, empty, protocol=PROTOCOLS["standard"], id="x"),), bootstrap=10
    )
    stored = json.loads(nothing.to_json())
    assert stored["rates"]["iou"] == {"value": None, "low": None, "high": None}
    assert any(note.startswith("Pd: not defined, no target") for note in stored["notes"])
    assert "not defined" in nothing.to_markdown()


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("test", True),
        ("50_50/test", True),
        ("idx_427/test", True),
        ("all", True),
        ("train + test", True),
        ("train", False),
        ("idx_427/trainval", False),
        ("idx_427/val", False),
    ],
)
def test_a_test_list_is_known_by_its_name(split, expected):
    assert report(split=split).on_test_list is expected


def test_fa_is_printed_in_millionths_and_ratios_in_per_cent():
    count = ImageCount("toy", "a", 1_000_000, 3, 1, 1, targets=1, matched=1, predicted=2, false_pixels=25)
    rows = {name: value for name, value, _ in report(counts=(count,)).rows()}
    assert rows["Fa"] == "25.00 x 1e-6"
    assert rows["IoU (pooled)"] == "60.00 %"


def test_strata_rows_cover_every_bin():
    assert len(report().strata_rows()) == 12


def test_a_box_ap_without_a_true_box_is_said_to_be_none():
    mask = np.zeros((9, 9), bool)
    count = count_image(mask, mask, protocol=PROTOCOLS["standard"], score=mask.astype(np.float32))
    assert ("box AP@0.5", "-1 (no true box)", "") in report(counts=(count,)).rows()
