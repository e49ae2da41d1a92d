"""Other people's checkpoints: the ways they are saved, what they say of themselves, and what is not supported."""

import argparse
import dataclasses
import json
import sys
import types
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from checkpoint_makers import write
from safetensors.torch import save_file

from clip4str.core.errors import CheckpointError, UnsafeCheckpointError
from clip4str.model import load_checkpoint, save_checkpoint

HYPER = {"img_size": [32, 64], "charset_test": "abc", "dec_num_heads": 4, "context_length": 12}


@pytest.fixture(scope="module")
def model(random_model):
    return random_model(seed=1, context=12)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def load(value, folder, **options):
    """What load_checkpoint makes of torch.save(value), and what it says."""
    torch.save(value, folder / "a.ckpt")
    said = []
    return load_checkpoint(folder / "a.ckpt", say=said.append, **options), said


def refused(value, folder, message, **options):
    with pytest.raises(CheckpointError, match=message) as caught:
        load(value, folder, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


class Node:
    """As omegaconf keeps values: nodes around them that know their parents."""

    def __init__(self, **state):
        self.__dict__.update(state)


def as_omegaconf(value, parent=None):
    if isinstance(value, dict):
        node = made("omegaconf.dictconfig", "DictConfig")
        node.__dict__.update(_metadata={"ref_type": dict}, _parent=parent)
        node._content = {k: as_omegaconf(v, node) for k, v in value.items()}
    elif isinstance(value, list):
        node = made("omegaconf.listconfig", "ListConfig")
        node.__dict__.update(_metadata={"ref_type": list}, _parent=parent)
        node._content = [as_omegaconf(v, node) for v in value]
    else:
        node = made("omegaconf.nodes", "AnyNode")
        node.__dict__.update(_metadata={"key": 1}, _parent=parent, _val=value)
    return node


def made(module, name):
    """A value of a class of a module that no test imports; reading it must need, and run, nothing of it."""
    kind = getattr(sys.modules.get(module), name, None)
    if kind is None:

        def run(*_):
            raise AssertionError("foreign code ran")

        kind = type(name, (Node,), {"__module__": module, "__setstate__": run})
        for part in (module.partition(".")[0], module):
            sys.modules.setdefault(part, types.ModuleType(part))
        setattr(sys.modules[module], name, kind)
    return kind()


@pytest.fixture(autouse=True)
def no_modules_stay():
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("omegaconf", "someone"):
            del sys.modules[name]


@dataclasses.dataclass
class Settings:
    img_size: tuple = (32, 64)
    charset_test: str = "abc"
    dec_num_heads: int = 4
    context_length: int = 12


def dataclass_of_another_program():
    node = made("someone.settings", "Settings")
    node.__dict__.update(HYPER)
    return node


def lightning_attributes():
    from lightning.fabric.utilities.data import AttributeDict

    return AttributeDict(HYPER)


def real_omegaconf():
    return pytest.importorskip("omegaconf").OmegaConf.create(HYPER)


def real_omegaconf_nested():
    config = {"model": {**HYPER, "img_size": [32, 64]}, "data": {"img_size": "${model.img_size}"}}
    return pytest.importorskip("omegaconf").OmegaConf.create(config)


@pytest.mark.parametrize(
    "say",
    [
        lambda: HYPER,
        lambda: {**HYPER, "img_size": (32, 64)},
        lambda: {**HYPER, "img_size": torch.Size((32, 64))},
        lambda: {**HYPER, "img_size": as_omegaconf([32, 64])},
        lambda: as_omegaconf(HYPER),
        lambda: argparse.Namespace(**HYPER),
        lambda: types.SimpleNamespace(**HYPER),
        lambda: Settings(),
        dataclass_of_another_program,
        lightning_attributes,
        real_omegaconf,
        real_omegaconf_nested,
        lambda: {"model": HYPER, "lr": 1.0},
        lambda: {"config": as_omegaconf({"model": HYPER})},
        lambda: argparse.Namespace(model=argparse.Namespace(**HYPER)),
    ],
)
def test_hyper_parameters_of_any_class_and_nested_are_read(model, tmp_path, say):
    loaded, said = load({"state_dict": model.state_dict(), "hyper_parameters": say()}, tmp_path)
    assert same(loaded, model) and loaded.charset.test == "abc"
    assert loaded.config == replace(model.config, charset_test="abc") and loaded.config.decoder_heads == 4
    assert said == ["a.ckpt: the file does not say, so assumed: the first 94 of CLIP4STR's characters (--charset)"]


@pytest.mark.parametrize("key", ["hparams", "config", "cfg", "args"])
def test_hyper_parameters_under_other_names_beside_the_weights(model, tmp_path, key):
    loaded, _ = load({"model": model.state_dict(), key: argparse.Namespace(**HYPER)}, tmp_path)
    assert loaded.config == replace(model.config, charset_test="abc")


@pytest.mark.parametrize(
    ("hyper", "message"),
    [
        ({"img_size": "32x64"}, "img_size cannot be read: give it .--image-size"),
        ({"img_size": [32, 64, 3]}, "img_size cannot be read"),
        ({"img_size": [32.0, 64.0]}, "img_size cannot be read"),
        ({"img_size": np.array([32, 64])}, "img_size cannot be read"),
        ({"dec_num_heads": "4"}, "dec_num_heads cannot be read: save it as a plain value"),
        ({"charset_train": list("abc")}, "charset_train cannot be read: give it .--charset"),
        ({"model": {"dec_num_heads": 8}}, "two things of dec_num_heads: 4 and 8"),
        ({"max_label_length": 30}, "say max_label_length=30, its tensors 25"),
        ({"dec_depth": 2}, "say dec_depth=2, its tensors 1"),
        ({"dec_mlp_ratio": 4}, "say dec_mlp_ratio=4, its tensors 2"),
        ({"img_size": [64, 64]}, "image size 64x64 has 8x4 patches of 8x16, but the positional embedding has 16"),
        ({"use_language_model": False}, "use_language_model=False, no cross-modal branch: not supported"),
        ({"use_share_dim": False}, "use_share_dim=False"),
        ({"clip_cls_eot_feature": True}, "clip_cls_eot_feature=True"),
        ({"cross_token_embeding": True}, "cross_token_embeding=True"),
        ({"cross_fast_decode": True}, "cross_fast_decode=True"),
    ],
)
def test_what_cannot_be_read_contradicts_or_is_not_supported_is_refused_by_name(model, tmp_path, hyper, message):
    value = {"state_dict": model.state_dict(), "hyper_parameters": {**HYPER, **hyper}}
    refused(value, tmp_path, message)
    value["hyper_parameters"] = as_omegaconf({k: v for k, v in value["hyper_parameters"].items() if k != "img_size"})
    if "img_size" not in hyper:
        refused(value, tmp_path, message, image_size=(32, 64))


def test_omegaconfs_references_are_not_guessed(model, tmp_path):
    said = as_omegaconf({**HYPER, "img_size": "${data.img_size}"})
    refused({"state_dict": model.state_dict(), "hyper_parameters": said}, tmp_path, "img_size cannot be read")
    loaded, _ = load({"state_dict": model.state_dict(), "hyper_parameters": said}, tmp_path, image_size=(32, 64))
    assert loaded.config.image_size == (32, 64)


def test_options_of_training_alone_are_no_matter(model, tmp_path):
    published = {
        "name": "vl4str", "_target_": "strhub.models.vl_str.system.VL4STR", "patch_size": [16, 16], "embed_dim": 512,
        "enc_num_heads": 12, "enc_mlp_ratio": 4, "enc_depth": 12, "enc_width": 768, "dec_depth": 1,
        "image_detach": False,
        "cross_gt_context": False, "cross_cloze_mask": True, "cross_loss_w": 2.0, "itm_loss": True, "perm_num": 12,
        "dropout": 0.5, "image_freeze_nlayer": 3, "text_freeze_nlayer": 6, "freeze_backbone": True, "decode_ar": True,
        "refine_iters": 1, "use_language_model": True, "use_share_dim": True, "clip_cls_eot_feature": False,
        "cross_token_embeding": False, "clip_pretrained": "ViT-B-16.pt", "max_label_length": 25, "lr": 8.4e-5,
        "charset_train": model.config.charset,
    }  # fmt: skip
    loaded, said = load({"state_dict": model.state_dict(), "hyper_parameters": {**HYPER, **published}}, tmp_path)
    assert same(loaded, model) and said == []


def test_how_it_was_to_be_decoded_is_mentioned(model, tmp_path):
    hyper = {**HYPER, "charset_train": model.config.charset, "decode_ar": False, "refine_iters": 2}
    _, said = load(
        {"state_dict": model.state_dict(), "hyper_parameters": {**hyper, "cross_correct_once": True}}, tmp_path
    )
    assert len(said) == 3 and "published code ignores" in said[0]
    assert "--decode nar" in said[1] and "refine_iters=2" in said[2] and "--refine N" in said[2]


def test_what_a_bare_state_dict_leaves_open_is_said_in_one_line(model, tmp_path):
    loaded, said = load(model.state_dict(), tmp_path, image_size=(32, 64))
    assert loaded.config.decoder_heads == 8
    assert len(said) == 1 and "8 heads in the decoders, 16 tokens of caption" in said[0] and "input" not in said[0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_checkpoint(tmp_path / "a.ckpt", image_size=(32, 64))
    assert [str(w.message) for w in caught] == said


def test_an_input_of_64x256_is_not_taken_for_128x128_in_silence(random_model, tmp_path):
    wide = random_model(seed=2, image_size=(64, 256), patch_size=(16, 16))
    loaded, said = load(wide.state_dict(), tmp_path)
    assert loaded.config.image_size == (128, 128) and "an input of 128x128 (--image-size)" in said[0]
    loaded, said = load(wide.state_dict(), tmp_path, image_size=(64, 256))
    assert loaded.config.image_size == (64, 256) and "--image-size" not in said[0]


def test_what_this_package_writes_leaves_nothing_open(model, tmp_path):
    save_checkpoint(model, tmp_path / "a.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_checkpoint(tmp_path / "a.safetensors")


def averaged(state):
    from torch.optim.swa_utils import AveragedModel

    inner = torch.nn.Module()
    for name, value in state.items():
        inner.register_parameter(name.replace(".", "/"), torch.nn.Parameter(value))
    return {k.replace("/", "."): v for k, v in AveragedModel(inner).state_dict().items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"model": s},
        lambda s: {"model_state_dict": s, "epoch": torch.tensor(3), "optimizer": {"state": {0: {"step": 1}}}},
        lambda s: {"net": s},
        lambda s: {"module": s},
        lambda s: {"state_dict_ema": s},
        averaged,
        lambda s: {"model": averaged(s)},
        lambda s: {f"model.student.{k}": v for k, v in s.items()},
        lambda s: {k.replace("visual.", "visual._orig_mod."): v for k, v in s.items()},
        lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
        lambda s: {**s, "num_batches_tracked": torch.tensor(7), "position_ids": torch.arange(77)},
        lambda s: {
            "state_dict": s,
            "callbacks": {"stats": np.arange(5.0), "name": np.array(["a"])},
            "best": np.int64(3),
        },
        lambda s: {"state_dict": {k: torch.nn.Parameter(v) for k, v in s.items()}},
        lambda s: {"state_dict": {k: v.bfloat16() for k, v in s.items()}},
        lambda s: {"state_dict": {k: v.double() for k, v in s.items()}},
    ],
)
def test_every_usual_way_to_save_a_network(model, tmp_path, wrap):
    state = {k: v.bfloat16().float() for k, v in model.state_dict().items()}
    for options in ({}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}):
        torch.save(wrap(state), tmp_path / "a.pt", **options)
        loaded = load_checkpoint(tmp_path / "a.pt", image_size=(32, 64), say=lambda _: None)
        assert all(torch.equal(v, state[k]) for k, v in loaded.state_dict().items())


def test_two_networks_in_a_file(model, random_model, tmp_path):
    state, other = model.state_dict(), random_model(seed=5, context=12).state_dict()
    loaded, said = load({"model": state, "ema": other}, tmp_path, image_size=(32, 64))
    assert same(loaded, model) and "holds 2 networks, under model, ema: that under model is taken" in said[0]
    two = {f"{name}.{k}": v for name, s in (("student", state), ("teacher", other)) for k, v in s.items()}
    refused(two, tmp_path, "holds several networks .student.clip_model.*teacher", image_size=(32, 64))


def test_what_lies_beside_the_network_is_left_out_and_said(model, tmp_path):
    state = {f"model.{k}": v for k, v in model.state_dict().items()}
    loaded, said = load({**state, "criterion.weight": torch.ones(4)}, tmp_path, image_size=(32, 64))
    assert same(loaded, model) and "left out, beside model: criterion.weight" in said[0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: torch.nn.Linear(2, 2), "holds a torch.nn.modules.linear.Linear, not a state_dict"),
        (lambda s: {"model": torch.nn.Linear(2, 2)}, "its model is a whole torch.nn.*Linear, where its state_dict"),
        (lambda s: {"state_dict": {k: v.numpy() for k, v in s.items()}}, "is a numpy.*expected plain float weights"),
        (lambda s: {**s, "cross_decoder.head.bias": torch.zeros(95).to_sparse()}, "sparse.*expected plain float"),
        (lambda s: {**s, "cross_decoder.head.weight": torch.ones(95, 32).char()}, "int8; expected plain float"),
        (lambda s: {k.removeprefix("clip_model."): v for k, v in s.items() if k.startswith("clip_model.")},
         "base CLIP weights, not a CLIP4STR checkpoint: .*--init clip:FILE"),
        (lambda s: {k: v for k, v in s.items() if not k.startswith("cross_decoder.")}, "no cross-modal decoder"),
        (lambda s: {**s, **{k.replace("layers.0", "layers.1"): v for k, v in s.items() if "layers.0" in k}},
         "its visual_decoder has 2 layers; one is supported, as in all published networks"),
        (lambda s: {**s, "visual_decoder.head.weight": torch.zeros(95, 64)},
         "decoders are 64 and 32 wide and its towers' features 32 .*use_share_dim=False"),
    ],
)  # fmt: skip
def test_relatives_and_other_kinds_are_refused_for_what_they_are(model, tmp_path, spoil, message):
    refused(spoil(dict(model.state_dict())), tmp_path, message, image_size=(32, 64))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_one_weight_that_is_no_number_is_refused_at_load(model, tmp_path, name, value):
    state = {k: v.clone() for k, v in model.state_dict().items()}
    state["cross_decoder.layers.0.norm1.bias"][3] = value
    (torch.save if name.endswith("pt") else save_file)(state, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"cross_decoder\.layers\.0\.norm1\.bias has numbers that are not finite"):
        load_checkpoint(tmp_path / name, image_size=(32, 64))


def test_flipped_bits_in_the_weights_are_noticed(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "a.pt")
    data = bytearray((tmp_path / "a.pt").read_bytes())
    data[len(data) // 2] ^= 1
    with pytest.raises(CheckpointError, match="checksum of its weights is wrong"):
        load_checkpoint(write(tmp_path / "a.pt", bytes(data)), image_size=(32, 64))


def test_files_that_torch_saved_without_checksums(model, tmp_path, monkeypatch):
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        assert same(load(model.state_dict(), tmp_path, image_size=(32, 64))[0], model)
    finally:
        torch.serialization.set_crc32_options(before)


def test_names_out_of_a_file_stay_on_one_bounded_line(model, tmp_path):
    spoiled = {**model.state_dict(), "a\nb\x1b[31m" + 5000 * "c": torch.ones(1)}
    torch.save(spoiled, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\\nb\\x1b\[31mccc") as caught:
        load_checkpoint(tmp_path / "a.pt", image_size=(32, 64))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1500


def test_a_class_is_data_and_a_call_is_not(model, tmp_path):
    """A value of an unknown class is a name and its fields; what an unknown function returns nobody knows."""
    assert load(
        {"state_dict": model.state_dict(), "best": dataclass_of_another_program()}, tmp_path, image_size=(32, 64)
    )

    class Call:
        def __reduce__(self):
            return json.loads, ("1",)

    with pytest.raises(UnsafeCheckpointError, match=r"refused, reading it would run json\.loads"):
        load({"state_dict": model.state_dict(), "best": Call()}, tmp_path, image_size=(32, 64))
