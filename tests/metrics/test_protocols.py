"""The table of protocols says what docs/metrics.md and the field's public code say."""

import dataclasses
import json

import pytest

from ismallnet.metrics import PROTOCOLS, get_protocol


def test_the_five_protocols_are_known_by_name():
    assert list(PROTOCOLS) == ["standard", "ismallnet", "dnanet", "basicirstd", "acm"]
    assert all(PROTOCOLS[name].name == name for name in PROTOCOLS)


def test_an_unknown_name_is_answered_with_the_choices():
    with pytest.raises(ValueError, match=r"unknown protocol 'dna'; choose from standard, .*acm"):
        get_protocol("dna")


def test_a_protocol_passes_through_and_cannot_be_changed():
    own = dataclasses.replace(PROTOCOLS["standard"], name="mine", distance_px=5.0)
    assert get_protocol(own) is own
    with pytest.raises(dataclasses.FrozenInstanceError):
        own.name = "standard"  # type: ignore[misc]


def test_every_parameter_survives_json():
    for protocol in PROTOCOLS.values():
        stored = json.loads(json.dumps(protocol.parameters()))
        assert stored.keys() == {field.name for field in dataclasses.fields(protocol)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "standard",
            {"threshold": 0.5, "average": "pooled", "empty": 1.0, "matching": "bipartite", "size": None},
        ),
        ("ismallnet", {"eight_bit": True, "average": "image", "empty": 0.0, "size": None}),
        ("dnanet", {"threshold": 0.5, "size": (256, 256), "matching": "greedy", "average": "pooled"}),
        ("basicirstd", {"threshold": 0.5, "pad_multiple": 32, "matching": "greedy", "size": None}),
        ("acm", {"threshold": 0.5, "size": (512, 512), "split": "idx_427", "average": "pooled"}),
    ],
)
def test_protocol_parameters(name, expected):
    parameters = PROTOCOLS[name].parameters()
    assert {key: parameters[key] for key in expected} == expected
    assert parameters["distance_px"] == 3.0


def test_only_nuaa_is_seen_at_352_under_ismallnet():
    assert PROTOCOLS["ismallnet"].input_size("NUAA-SIRST") == (352, 352)
    assert PROTOCOLS["ismallnet"].input_size("NUDT-SIRST") is None
    assert PROTOCOLS["standard"].input_size("NUAA-SIRST") is None
