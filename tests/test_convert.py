"""Weights of the official codes: both networks are written out below once more, plainly, on official names.

What is written out are facts read in the official codes (shared/systems.md, sections 11 and 12; names, widths
and the order of what is concatenated); none of our modules is used for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import ismallnet
from ismallnet.cli import main
from ismallnet.convert import convert, from_official, read_weights

State = dict[str, Tensor]
WIDTHS = (16, 32, 64, 128, 256)
DEPTHS = {"resnet10": (1, 1, 1, 1, 1), "resnet18": (1, 2, 2, 2, 2), "resnet34": (1, 3, 4, 6, 3)}
NODES = [(i, j) for j in range(1, 5) for i in range(5 - j)]
"""Column after column: every node then finds what it reads, but for those above it in its own column."""


# --- random weights under official names ---------------------------------------------------------------


class Maker:
    """Collects random tensors, batch-norm statistics included."""

    def __init__(self, seed: int, *, bias: bool) -> None:
        self.state: State = {}
        self.random = torch.Generator().manual_seed(seed)
        self.bias = bias

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.random) * (high - low) + low

    def conv(self, name: str, inputs: int, width: int, side: int, *, bias: bool) -> None:
        reach = (3 / (inputs * side**2)) ** 0.5  # larger, and every rounding grows through the levels
        self.state[f"{name}.weight"] = self.uniform(-reach, reach, width, inputs, side, side)
        if bias:
            self.state[f"{name}.bias"] = self.uniform(-0.3, 0.3, width)

    def norm(self, name: str, width: int) -> None:
        for key, low, high in (
            ("weight", 0.5, 1.5),
            ("bias", -0.3, 0.3),
            ("running_mean", -0.3, 0.3),
            ("running_var", 0.5, 1.5),
        ):
            self.state[f"{name}.{key}"] = self.uniform(low, high, width)
        self.state[f"{name}.num_batches_tracked"] = torch.tensor(14_000)

    def node(self, name: str, inputs: int, width: int, depth: int) -> None:
        for n in range(depth):
            block, before = f"{name}.{n}", width if n else inputs
            self.conv(f"{block}.conv1", before, width, 3, bias=self.bias)
            self.norm(f"{block}.bn1", width)
            self.conv(f"{block}.conv2", width, width, 3, bias=self.bias)
            self.norm(f"{block}.bn2", width)
            if before != width:
                self.conv(f"{block}.shortcut.0", before, width, 1, bias=True)
                self.norm(f"{block}.shortcut.1", width)
            self.conv(f"{block}.ca.fc1", width, width // 16, 1, bias=False)
            self.conv(f"{block}.ca.fc2", width // 16, width, 1, bias=False)
            self.conv(f"{block}.sa.conv1", 2, 1, 7, bias=False)

    def encoder(self, prefix: str, depths: tuple[int, ...]) -> None:
        for i, before in enumerate((3, *WIDTHS[:-1])):
            self.node(f"{prefix}conv{i}_0", before, WIDTHS[i], depths[i])

    def grid(self, prefix: str, depths: tuple[int, ...], above: int) -> None:
        for i, j in NODES:
            inputs = j * WIDTHS[i] + WIDTHS[i + 1] + (above * WIDTHS[i - 1] if i else 0)
            self.node(f"{prefix}conv{i}_{j}", inputs, WIDTHS[i], depths[i])

    def fusion(self, prefix: str) -> None:
        for i in (4, 3, 2, 1):
            self.conv(f"{prefix}conv0_{i}_1x1", WIDTHS[i], 16, 1, bias=True)
        self.node(f"{prefix}conv0_4_final", 80, 16, 1)


@cache
def dnanet_state(backbone: str = "resnet18", *, deep: bool = True) -> State:
    make = Maker(1, bias=True)
    make.encoder("", DEPTHS[backbone])
    make.grid("", DEPTHS[backbone], above=1)
    make.fusion("")
    for name in ("final1", "final2", "final3", "final4") if deep else ("final",):
        make.conv(name, 16, 1, 1, bias=True)
    return make.state


@cache
def ismallnet_state() -> State:
    make = Maker(2, bias=False)
    for stream in "bd":
        make.encoder(f"{stream}bkbone.", DEPTHS["resnet18"])
        make.grid(f"decoder{stream}1.", DEPTHS["resnet18"], above=2)
        make.fusion(f"decoder{stream}2.")
        make.conv(f"linear{stream}", 16, 1, 3, bias=True)
    for i in range(5):
        make.conv(f"decoder3.conv{i}_1x1", 32, 16, 1, bias=True)
    make.node("decoder3.conv_final", 80, 16, 1)
    make.conv("linear.0", 48, 16, 3, bias=True)
    make.norm("linear.1", 16)
    make.conv("linear.3", 16, 1, 3, bias=True)
    return make.state


# --- the networks once more ----------------------------------------------------------------------------


def conv(s: State, name: str, x: Tensor) -> Tensor:
    weight = s[f"{name}.weight"]
    return F.conv2d(x, weight, s.get(f"{name}.bias"), padding=weight.shape[-1] // 2)


def norm(s: State, name: str, x: Tensor) -> Tensor:
    mean, var = s[f"{name}.running_mean"], s[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, s[f"{name}.weight"], s[f"{name}.bias"])


def node(s: State, name: str, *inputs: Tensor) -> Tensor:
    x, n = torch.cat(inputs, 1), 0
    while f"{name}.{n}.conv1.weight" in s:
        b = f"{name}.{n}"
        y = norm(s, f"{b}.bn2", conv(s, f"{b}.conv2", F.relu(norm(s, f"{b}.bn1", conv(s, f"{b}.conv1", x)))))
        mean, peak = F.adaptive_avg_pool2d(y, 1), F.adaptive_max_pool2d(y, 1)
        mean, peak = (conv(s, f"{b}.ca.fc2", F.relu(conv(s, f"{b}.ca.fc1", v))) for v in (mean, peak))
        y = torch.sigmoid(mean + peak) * y
        y = torch.sigmoid(conv(s, f"{b}.sa.conv1", torch.stack([y.mean(1), y.max(1).values], 1))) * y
        if f"{b}.shortcut.0.weight" in s:
            x = norm(s, f"{b}.shortcut.1", conv(s, f"{b}.shortcut.0", x))
        x, n = F.relu(x + y), n + 1
    assert n
    return x


def scale(x: Tensor, factor: float, *, corners: bool) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=corners)


def encode(s: State, prefix: str, x: Tensor) -> dict[tuple[int, int], Tensor]:
    found = {}
    for i in range(5):
        x = node(s, f"{prefix}conv{i}_0", F.max_pool2d(x, 2) if i else x)
        found[i, 0] = x
    return found


def nest(s: State, prefix: str, x: dict[tuple[int, int], Tensor], above: tuple[int, ...]) -> None:
    """Add X[i, j], j > 0; a node also reads X[i - 1, j - k] of the level above for these k, in this order."""
    for i, j in NODES:
        down = [scale(x[i - 1, j - k], 0.5, corners=True) for k in above] if i else []
        up = scale(x[i + 1, j - 1], 2, corners=True)
        x[i, j] = node(s, f"{prefix}conv{i}_{j}", *(x[i, k] for k in range(j)), up, *down)


def levels(s: State, prefix: str, x: dict[tuple[int, int], Tensor], *, corners: bool) -> list[Tensor]:
    """The last diagonal at full resolution, level 4 first."""
    narrow = [
        scale(conv(s, f"{prefix}conv0_{i}_1x1", x[i, 4 - i]), 2**i, corners=corners) for i in (4, 3, 2, 1)
    ]
    return [*narrow, x[0, 4]]


def dnanet(s: State, image: Tensor) -> list[Tensor]:
    """The target's logits, then those of X[0, 1], X[0, 2] and X[0, 3] where there are heads for them."""
    mean, std = image.new_tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    x = encode(s, "", (image - mean) / std)
    nest(s, "", x, above=(0,))
    fused = node(s, "conv0_4_final", *levels(s, "", x, corners=True))
    if "final.weight" in s:
        return [conv(s, "final", fused)]
    return [conv(s, "final4", fused), *(conv(s, f"final{j}", x[0, j]) for j in (1, 2, 3))]


def official_ismallnet(s: State, image: Tensor) -> list[Tensor]:
    """The logits of target, interior and boundary."""
    mean, std = image.new_tensor([[124.55, 118.90, 102.94], [56.77, 55.97, 57.50]])[..., None, None]
    finals, streams = [], []
    for stream in "bd":
        x = encode(s, f"{stream}bkbone.", (image * 255 - mean) / std)
        nest(s, f"decoder{stream}1.", x, above=(1, 0))
        streams.append(levels(s, f"decoder{stream}2.", x, corners=False))
        finals.append(node(s, f"decoder{stream}2.conv0_4_final", *streams[-1]))
    joined = [
        conv(s, f"decoder3.conv{i}_1x1", torch.cat([interior, boundary], 1))
        for i, interior, boundary in zip((4, 3, 2, 1, 1), *streams, strict=True)
    ]
    everything = torch.cat([*finals, node(s, "decoder3.conv_final", *joined)], 1)
    target = conv(s, "linear.3", F.relu(norm(s, "linear.1", conv(s, "linear.0", everything))))
    return [target, conv(s, "linearb", finals[0]), conv(s, "lineard", finals[1])]


def double(s: State) -> State:
    return {name: tensor.double() for name, tensor in s.items()}


def an_image() -> Tensor:
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def assert_same(ours: list[Tensor], official: list[Tensor]) -> None:
    assert len(ours) == len(official)
    for mine, theirs in zip(ours, official, strict=True):
        assert theirs.std() > 0.01  # the logits say something
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


# --- what is converted ---------------------------------------------------------------------------------


def test_converted_ismallnet_has_the_official_logits() -> None:
    state, image = ismallnet_state(), an_image()
    model = from_official(state, "ismallnet")[0].double()
    with torch.no_grad():
        ours, official = model(image), official_ismallnet(double(state), image)
    assert_same([ours.target, ours.interior, ours.boundary], official)


@pytest.mark.parametrize(
    ("backbone", "deep"), [("resnet10", True), ("resnet18", True), ("resnet18", False), ("resnet34", True)]
)
def test_converted_dnanet_has_the_official_logits(backbone: str, deep: bool) -> None:
    state, image = dnanet_state(backbone, deep=deep), an_image()
    model = from_official(state, "dnanet")[0].double()
    with torch.no_grad():
        assert_same([model(image).target], dnanet(double(state), image)[:1])
        model.train()  # the other heads are run in training only; the statistics stay
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        ours = model(image)
        assert_same([ours.target, *ours.auxiliary], dnanet(double(state), image))


@pytest.mark.parametrize(
    ("model", "make"),
    [
        ("ismallnet", ismallnet_state),
        ("dnanet", dnanet_state),
        ("dnanet", lambda: dnanet_state(deep=False)),
    ],
)
def test_every_official_tensor_is_used_once_and_every_tensor_of_ours_is_set(
    model: str, make: Callable[[], State]
) -> None:
    """Each official tensor is filled with a number of its own, the dead decoder3.conv0_1x1 included."""
    state = {name: torch.full_like(tensor, n) for n, (name, tensor) in enumerate(make().items())}
    ours = from_official(state, model)[0].state_dict()
    found = [tensor.unique().tolist() for name, tensor in ours.items() if name not in ("mean", "std")]
    assert sorted(found) == [[n] for n in range(len(state))]


def test_number_of_official_tensors_is_the_known_one() -> None:
    """645 parameters and 140 batch norms of three buffers each; shared/systems.md, section 12."""
    assert len(ismallnet_state()) == 645 + 140 * 3
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    numbers = [tensor.numel() for name, tensor in ismallnet_state().items() if not name.endswith(buffers)]
    assert (len(numbers), sum(numbers)) == (645, 9_688_461)


def test_counters_of_batch_norms_may_be_missing() -> None:
    state = dnanet_state("resnet10")
    fewer = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert len(fewer) < len(state)
    ours, whole = (from_official(s, "dnanet")[0].state_dict() for s in (fewer, state))
    assert all(torch.equal(ours[name], whole[name]) for name in whole if not name.endswith("tracked"))
    assert ours["encoder.levels.0.0.norm1.num_batches_tracked"] == 0


# --- what is read --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state() -> State:
    return dnanet_state("resnet10")


def wrap(state: State) -> dict[str, object]:
    """What the official DNANet code saves: an epoch, a loss, and an IoU that is a number of NumPy's."""
    return {"epoch": 7, "state_dict": state, "loss": 0.25, "mean_IOU": np.float64(0.75)}


def assert_read(path: Path, state: State) -> None:
    back = read_weights(path)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.parametrize("name", ["model.pth", "model.pt", "epoch.pth.tar", "model-best"])
def test_a_state_dict_is_read_whatever_the_suffix(tmp_path: Path, state: State, name: str) -> None:
    torch.save(state, tmp_path / name)
    assert_read(tmp_path / name, state)


def test_safetensors_are_read(tmp_path: Path, state: State) -> None:
    save_file(state, tmp_path / "model.safetensors")
    assert_read(tmp_path / "model.safetensors", state)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_with_the_state_dict_inside_is_read(tmp_path: Path, state: State, zipped: bool) -> None:
    torch.save(wrap(state), tmp_path / "x.pth.tar", _use_new_zipfile_serialization=zipped)
    assert_read(tmp_path / "x.pth.tar", state)


def test_a_number_of_an_old_numpy_is_read(tmp_path: Path) -> None:
    state = {"a": torch.ones(2)}
    torch.save(wrap(state), tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "x.pth").read_bytes().replace(b"cnumpy._core.", b"cnumpy.core.")
    assert b"cnumpy.core.multiarray\n" in content
    (tmp_path / "x.pth").write_bytes(content)
    assert_read(tmp_path / "x.pth", state)


def test_the_prefix_of_dataparallel_is_dropped(tmp_path: Path, state: State) -> None:
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "x.pth")
    assert_read(tmp_path / "x.pth", state)


class Harmful:
    """Runs a command where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return __import__("os").mkdir, (str(self.mark),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "extra": Harmful(tmp_path / "mark")}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"holds (posix|nt)\.mkdir, .* since that can run code"):
        read_weights(tmp_path / "x.pth")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut off", b"\x89PNG\r\n\x1a\n"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_is_refused_without_advice_to_run_it(
    tmp_path: Path, content: bytes, suffix: str
) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    expected = r"damaged, or no weights saved by torch|no safetensors file"
    with pytest.raises(ValueError, match=expected) as refused:
        read_weights(path)
    assert "weights_only" not in str(refused.value)


@pytest.mark.parametrize("content", [torch.ones(2), [torch.ones(2)], {}])
def test_what_is_no_mapping_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="expected tensors by name"):
        read_weights(tmp_path / "x.pth")


def test_a_checkpoint_with_its_tensors_elsewhere_is_refused(tmp_path: Path) -> None:
    torch.save({"net": {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="under 'state_dict'; no tensors are net, epoch"):
        read_weights(tmp_path / "x.pth")


# --- what is refused -----------------------------------------------------------------------------------


def test_weights_of_the_other_network_are_refused_with_its_name(state: State) -> None:
    with pytest.raises(ValueError, match=r"not the weights of ismallnet.*resembles dnanet most: 100%"):
        from_official(state, "ismallnet")


def test_a_missing_and_a_foreign_tensor_are_named(state: State) -> None:
    changed = {**state, "conv9_9.weight": torch.ones(1)}
    del changed["conv0_3_1x1.bias"]
    expected = r"Missing: conv0_3_1x1\.bias; unexpected: conv9_9\.weight\. Accepted .*ismallnet .*dnanet "
    with pytest.raises(ValueError, match=expected):
        from_official(changed, "dnanet")


def test_weights_of_no_known_layout_resemble_neither() -> None:
    with pytest.raises(ValueError, match=r"bn1\.bias and \d+ more; unexpected: a, b, c, d and 1 .*neither"):
        from_official({name: torch.ones(1) for name in "abcde"}, "dnanet")


def test_grey_official_weights_are_refused_by_their_shape(state: State) -> None:
    name = "conv0_0.0.conv1.weight"
    with pytest.raises(ValueError, match=r"conv0_0.*\(16, 1, 3, 3\) instead of \(16, 3, 3, 3\).*three input"):
        from_official({**state, name: state[name][:, :1]}, "dnanet")


def test_a_model_without_official_layout_is_refused(state: State) -> None:
    with pytest.raises(ValueError, match="unknown model 'acm'; choose from ismallnet, dnanet"):
        from_official(state, "acm")


# --- the folder and the command ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, state: State) -> Path:
    path = tmp_path_factory.mktemp("official") / "epoch.pth.tar"
    torch.save(wrap(state), path)
    return path


def test_folder_is_loaded_and_says_where_its_weights_are_from(
    tmp_path: Path, weights: Path, state: State
) -> None:
    convert(weights, tmp_path / "m", model="dnanet")
    grey = an_image()[:1, :1]
    detector = ismallnet.load(tmp_path / "m", device="cpu")
    score = torch.from_numpy(detector.score(grey[0, 0].float().numpy())).double()
    official = dnanet(double(state), grey.expand(1, 3, 32, 48))[0]
    torch.testing.assert_close(score, torch.sigmoid(official)[0, 0], rtol=0, atol=1e-4)  # ours is float32
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert (config["model"], config["options"]["backbone"]) == ("dnanet", "resnet10")
    origin = config["converted"]
    assert origin["file"] == "epoch.pth.tar"
    assert origin["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert origin["layout"] == "github.com/YeRen123455/Infrared-Small-Target-Detection"
    assert origin["date"].startswith("20")


@pytest.mark.parametrize(
    ("model", "make", "mean", "std"),
    # shared/systems.md, sections 11 and 12
    [
        ("dnanet", dnanet_state, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("ismallnet", ismallnet_state, (124.55, 118.90, 102.94), (56.77, 55.97, 57.50)),
    ],
)
def test_normalisation_is_the_official_one(
    model: str, make: Callable[[], State], mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    ours = from_official(make(), model)[0].state_dict()
    whole = 255 if model == "ismallnet" else 1
    assert (ours["mean"].flatten() * whole).tolist() == pytest.approx(mean)
    assert (ours["std"].flatten() * whole).tolist() == pytest.approx(std)


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        status = main(["convert", *map(str, arguments)])
    except SystemExit as stop:
        status = int(stop.code or 0)
    out, err = capsys.readouterr()
    return status, out, " ".join(err.split())


def test_command_writes_a_folder_and_replaces_it_only_with_force(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (weights, "--model", "dnanet", "--out", tmp_path / "m")
    status, out, _ = command(capsys, *arguments)
    assert status == 0
    assert f"ismallnet detect IMAGES --model {tmp_path / 'm'}" in out
    before = (tmp_path / "m" / "config.json").read_bytes()
    status, _, err = command(capsys, *arguments)
    assert (status, "--force" in err) == (2, True)
    assert (tmp_path / "m" / "config.json").read_bytes() == before
    assert command(capsys, *arguments, "--force")[0] == 0


def test_command_refuses_weights_of_the_other_network(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = command(capsys, weights, "--model", "ismallnet", "--out", tmp_path / "m")
    assert status == 2
    assert f"error: {weights}: these are not the weights of ismallnet" in err
    assert "resembles dnanet most" in err
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no file at"), (b"no weights", "damaged"), (Harmful(Path("mark")), "can run code")],
)
def test_command_refuses_a_file_it_cannot_read(
    tmp_path: Path, content: object, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    status, _, err = command(capsys, path, "--model", "dnanet", "--out", tmp_path / "m")
    assert status == 2
    assert "error: " in err
    assert reason in err
    assert str(path) in err
    assert not (tmp_path / "m").exists()
