"""Tables written entry by entry are those that `json.dumps` writes of the whole."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from ismallnet.tables import COLUMNS, FILES, Failure, FrameResult, Record, Tables, from_line, to_line
from ismallnet.types import Target

HEAD = {"ismallnet": "1.2.3", "model": 'é "x"', "weights_sha256": None}


def frame(number: int, targets: int) -> FrameResult:
    found = tuple(Target(n, 1, n + 2, 4, n + 0.1, 1 / 3, 6, 1 / 7, 0.1) for n in range(targets))
    return FrameResult("红外.mkv", number, 5, 6, "uint16", 1.0, 2.5, "percentile", "", 0.5, found)


RECORDS: list[Record] = [
    frame(0, 2),
    Failure("红外.mkv", "damaged", 1),
    frame(2, 0),
    frame(3, 1),
    Failure("b", "no"),
]


def write(folder: Path, records: list[Record]) -> Path:
    with Tables(folder, tuple(FILES), HEAD) as tables:
        for record in records:
            tables.add(record)
    return folder


@pytest.mark.parametrize("records", [RECORDS, [], RECORDS[:1], RECORDS[1:2]])
@pytest.mark.parametrize("name", ["detections.json", "coco.json"])
def test_json_is_written_as_json_dumps_writes_it(tmp_path: Path, name: str, records: list[Record]) -> None:
    text = (write(tmp_path, records) / name).read_text("utf-8")
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"


def test_the_tables_agree_on_what_was_found(tmp_path: Path) -> None:
    write(tmp_path, RECORDS)
    whole = json.loads((tmp_path / "detections.json").read_text("utf-8"))
    assert {key: whole[key] for key in HEAD} == HEAD
    assert [(image["frame"], len(image["targets"])) for image in whole["images"]] == [(0, 2), (2, 0), (3, 1)]
    assert whole["failed"] == [
        {"image": "红外.mkv", "reason": "damaged", "frame": 1},
        {"image": "b", "reason": "no", "frame": None},
    ]
    lines = [json.loads(line) for line in (tmp_path / "detections.jsonl").read_text("utf-8").splitlines()]
    assert [line for line in lines if "failed" not in line] == whole["images"]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3, None]
    with (tmp_path / "detections.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert [(row[1], row[2]) for row in rows] == [("0", "1"), ("0", "2"), ("3", "1")]
    coco = json.loads((tmp_path / "coco.json").read_text("utf-8"))
    assert [(one["id"], one["image_id"]) for one in coco["annotations"]] == [(1, 1), (2, 1), (3, 3)]


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_is_read_back_unchanged(record: Record) -> None:
    line = to_line(record)
    assert "\n" not in line
    assert from_line(line) == record


def test_a_line_is_there_before_the_end(tmp_path: Path) -> None:
    with Tables(tmp_path, ["jsonl"], HEAD) as tables:
        for number in range(200):
            tables.add(frame(number, 3))
        assert (tmp_path / "detections.jsonl").stat().st_size > 10_000
