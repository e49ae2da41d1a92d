"""The program without the host's questions against the driver that asks them, and against the reference network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch_networks import Replayed, backend_of, driver_of, images

from clip4str.core.errors import NonFiniteError
from clip4str.core.reading import Decoding
from clip4str.kernels.linear import add_product_
from clip4str.runtime.backends.fixed_passes import Passes
from clip4str.runtime.backends.pytorch import program as program_module
from clip4str.runtime.backends.pytorch import towers
from clip4str.runtime.backends.pytorch.stages import patches_of

NETWORKS = [
    {},
    {"steps": 5, "eos_bias": 1.0, "context": 6},
    {"d": 64, "decoder_heads": 8, "image_layers": 1, "eos_bias": 4.0, "image_size": (37, 70)},
    {"steps": 1, "eos_bias": 0.0},
    {"d": 16, "decoder_heads": 16, "steps": 2, "eos_bias": 0.0},
    {
        "d": 16,
        "steps": 32,
        "text_positions": 77,
        "eos_bias": 2.0,
        "charset": "0123456789abcdefABC-",
        "charset_test": "0123456789abcdef",
    },
    {"steps": 6, "draft_frames": 8, "eos_bias": 1.0},
    {"patch_size": (32, 4), "draft_frames": 2, "d": 64},
]
MODES = [Decoding(d, r, b) for d in ("ar", "nar") for r in (0, 1, 2) for b in ("cross", "visual")]


def same(got, want, rows=None):
    """The same words with the same probabilities."""
    rows = slice(None) if rows is None else rows
    np.testing.assert_array_equal(got.ids, want.ids[rows])
    np.testing.assert_allclose(got.probs, want.probs[rows], rtol=2e-3, atol=2e-5)
    np.testing.assert_array_equal(got.steps_run, want.steps_run[rows])


@pytest.mark.parametrize("network", range(len(NETWORKS)))
def test_every_mode_reads_what_the_driver_and_the_network_read(network, random_model):
    model = random_model(seed=network, **NETWORKS[network])
    pixels, lengths = images(20, model, seed=network), set()
    for decoding in MODES:
        backend, driver = backend_of(model, decoding)
        got = backend.read(driver, pixels)
        model.decoding = decoding
        want = model.read(pixels)
        same(got, want)
        same(got, driver_of(model, decoding)(backend, pixels))
        lengths |= set((want.ids != 0).sum(1).tolist())
        assert got.stats.images == 20 and got.stats.batches == 1
        assert got.stats.text_calls == 0 or decoding.branch == "cross"
    assert len(lengths) > 2 or model.config.steps < 3, "words all of one length would prove little"


def test_rows_that_do_not_settle_in_time_and_captions_that_change_are_read_again(random_model):
    model = random_model(seed=3, eos_bias=3.5)
    pixels = images(24, model, seed=1)
    want, read = model.read(pixels), {}
    for passes in ((2, 1), (9, 6), (26, 26)):
        backend, driver = backend_of(model, passes=passes)
        runs = read.setdefault(passes, {"resumed": 0, "reread": 0})
        resume, reread = backend._runner.resume, backend._runner.reread

        def counted_resume(shot, rows, resume=resume, runs=runs):
            runs["resumed"] += len(rows)
            return resume(shot, rows)

        def counted_reread(shot, rows, reread=reread, runs=runs):
            runs["reread"] += len(rows)
            return reread(shot, rows)

        backend._runner.resume, backend._runner.reread = counted_resume, counted_reread
        got = backend.read(driver, pixels)
        same(got, want)
        assert got.stats.visual_passes >= passes[0] and got.stats.cross_passes >= passes[1]
    assert read[2, 1]["resumed"] > read[9, 6]["resumed"] > 0
    assert read[26, 26]["resumed"] == 0
    assert read[2, 1]["reread"] == read[26, 26]["reread"] > 0


@pytest.mark.parametrize("branch", ["cross", "visual"])
def test_any_draft_leads_to_the_same_words_and_one_that_is_right_takes_one_pass(branch, random_model, monkeypatch):
    model, how = random_model(seed=7, steps=9, draft_frames=8, eos_bias=2.0), Decoding(branch=branch)
    pixels = images(24, model)
    model.decoding = Decoding(refine=0, branch="visual", draft=False)
    words = model.read(pixels).ids.astype(np.int32)
    model.decoding = Decoding(branch=branch, draft=False)
    want = model.read(pixels)
    rng, resumed = np.random.default_rng(0), {}
    drafts = {
        "right": words,
        "nearly right": np.where(rng.random(words.shape) < 0.1, 7, words),
        "empty": np.zeros_like(words),
        "longest": np.where(np.arange(9) < 8, rng.integers(1, 95, words.shape), 0),
        "the network's own": None,
    }
    drafts["right"][:, -1] = 0  # as collapse cuts them
    for name, draft in drafts.items():
        if draft is not None:
            as_int = torch.from_numpy(draft.astype(np.int32))
            monkeypatch.setattr(program_module, "collapse", lambda logits, steps, words=as_int: words.clone())
        else:
            monkeypatch.undo()
        backend, driver = backend_of(model, how, passes=(2, 26))
        got = backend.read(driver, pixels)
        same(got, want)
        assert got.stats.drafted == 24
        resumed[name] = got.stats.visual_passes - 2
        if name == "right":
            with torch.inference_mode():
                one = replace(backend.program, passes=Passes(1, 26))
                results, _ = one.run(patches_of(pixels, backend.weights))
            assert not results[:, one.columns["unsettled"]].any()
    assert resumed["right"] == 0 < resumed["empty"]
    backend, driver = backend_of(model, Decoding(branch=branch, draft=False))
    got = backend.read(driver, pixels)
    same(got, want)
    assert got.stats.drafted == 0


@pytest.mark.parametrize("network", [{"draft_frames": 8}, {"patch_size": (32, 4), "draft_frames": 2, "d": 64}])
def test_the_stages_draft_what_the_network_drafts(network, random_model):
    model = random_model(seed=2, **network)
    pixels = images(9, model)
    backend, _ = backend_of(model)
    got, want = backend.image(pixels), model.image(pixels)
    np.testing.assert_array_equal(got[2], want[2])
    assert len(np.unique(want[2])) > 5 and len(backend_of(random_model(seed=2))[0].image(pixels)) == 2


def test_passes_that_nobody_asked_for(random_model):
    with_head, without = random_model(draft_frames=8), random_model()
    for model, how, wanted in (
        (with_head, Decoding(), Passes(2, 2)),
        (with_head, Decoding(draft=False), Passes(3, 2)),
        (without, Decoding(), Passes(3, 2)),
    ):
        assert backend_of(model, how)[0].program.first_passes == wanted
        assert backend_of(model, how, passes=(5, 4))[0].program.first_passes == Passes(5, 4)


@pytest.mark.parametrize("decode", ["ar", "nar"])
def test_words_that_the_program_reads_all_by_itself(decode, random_model):
    """Captions of hardly any character do not change, and every row settles: nothing is left to be read again."""
    model = random_model(seed=12, eos_bias=4.0, charset_test="7")
    model.decoding = Decoding(decode)
    backend, driver = backend_of(model, model.decoding, passes=(26, 26))
    pixels = images(32, model)
    got, want = backend.read(driver, pixels), model.read(pixels)
    same(got, want)
    assert got.stats.captions_encoded < 32 + 16, "most rows are as the program left them"


def test_a_word_does_not_depend_on_its_batch(random_model):
    model = random_model(seed=11)
    pixels = images(23, model, seed=11)
    backend, driver = backend_of(model)
    together = backend.read(driver, pixels)
    order = np.random.RandomState(0).permutation(23)
    same(backend.read(driver, pixels[order]), together, order)
    for row in range(23):
        same(backend.read(driver, pixels[row : row + 1]), together, [row])
    split, _ = backend_of(model, batch_size=5)
    parts = split.read(driver, pixels)
    same(parts, together)
    assert parts.stats.batches == 5 and parts.stats.images == 23


@pytest.mark.parametrize("decode", ["ar", "nar"])
def test_single_words_of_any_length_through_the_driver(decode, random_model):
    """Alone, a word of one character has a cloze mask that looks causal."""
    model = random_model(seed=106, steps=9, charset="abz019", charset_test="01", eos_bias=1.5)
    model.decoding = Decoding(decode, refine=2)
    backend, driver = backend_of(model, model.decoding)
    pixels = images(24, model, seed=106)
    want = model.read(pixels)
    for row in range(24):
        same(backend.read(driver, pixels[row : row + 1]), want, [row])


def test_captions_of_other_characters_are_tokenized_by_the_host(random_model):
    model = random_model(seed=2, charset_test="abc'-")
    backend, driver = backend_of(model)
    assert backend.program is None
    pixels = images(12, model)
    same(backend.read(driver, pixels), model.read(pixels))


def test_another_decoding_than_the_program_was_made_for(random_model):
    model = random_model(seed=2)
    backend, _ = backend_of(model)
    model.decoding = Decoding("nar", 0, "visual")
    pixels = images(6, model)
    same(backend.read(driver_of(model, model.decoding), pixels), model.read(pixels))


def test_an_image_without_numbers_is_said_and_the_others_read_as_ever(random_model):
    model = random_model(seed=5)
    pixels = images(6, model)
    backend, driver = backend_of(model)
    want = backend.read(driver, pixels)
    broken = pixels.clone()
    broken[2] = torch.nan
    with pytest.raises(NonFiniteError, match="the visual decoder's output is not finite"):
        backend.read(driver, broken)
    assert backend.finite_rows(broken).tolist() == [True, True, False, True, True, True]
    others = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(backend.read(driver, broken[others]).ids, want.ids[others])


@pytest.mark.parametrize("layer", [None, Replayed], ids=["eager", "graphs"])
@pytest.mark.parametrize(
    ("decoder", "decoding", "named"),
    [
        ("visual", Decoding(), "visual"),
        ("cross", Decoding(), "cross-modal"),
        ("visual", Decoding(branch="visual", refine=0), "visual"),
        ("cross", Decoding(decode="nar", refine=0), "cross-modal"),
        ("visual", Decoding(refine=2), "visual"),  # the driver's way
    ],
)
def test_a_decoder_that_overflows_reads_no_words(random_model, decoder, decoding, named, layer):
    """The visual one's numbers never show in the cross-modal answer, which is made of whatever it read."""
    model = random_model(seed=5)
    getattr(model, f"{decoder}_decoder").norm.weight.data *= 1e38
    backend, driver = backend_of(model, decoding, layer=layer and layer())
    with pytest.raises(NonFiniteError, match=f"the {named} decoder's output is not finite"):
        backend.read(driver, images(3, model))


@pytest.mark.parametrize("network", [0, 6])
def test_many_words_read_alike_with_residual_products_in_place(network, random_model, monkeypatch):
    """The towers as a GPU runs them on many rows: biases are carried beside the residual stream."""
    model = random_model(seed=network, **NETWORKS[network])
    tower = [*model.clip_model.visual.transformer.parameters(), *model.clip_model.transformer.parameters()]
    with torch.no_grad():
        for bias in (p for p in tower if p.dim() == 1):
            bias.add_(torch.randn(bias.shape, generator=torch.Generator().manual_seed(len(bias))), alpha=0.3)
    pixels = images(20, model, seed=network)
    backend, driver = backend_of(model)
    as_ever, products = backend.read(driver, pixels), []

    def counted(*given):
        products.append(given[2].shape)
        return add_product_(*given)

    monkeypatch.setattr(towers, "adds_in_place", lambda x: True)
    monkeypatch.setattr(towers, "add_product_", counted)
    got = backend.read(driver, pixels)
    same(got, as_ever)
    same(got, model.read(pixels))
    c = model.config
    assert len(products) >= 2 * (c.image_layers + c.text_layers)
    patches = patches_of(pixels, backend.weights)
    (kv, draft), blocks = towers.image_tower(backend.weights.image, patches), backend.weights.image.blocks
    monkeypatch.setattr(towers, "adds_in_place", lambda x: False)
    wanted, wanted_draft = towers.image_tower(backend.weights.image, patches)
    torch.testing.assert_close(kv, wanted, rtol=1e-4, atol=1e-4)
    if draft is not None:
        torch.testing.assert_close(draft, wanted_draft, rtol=1e-4, atol=1e-4)
    assert all(block.carried[1].abs().max() > 0.1 for block in blocks)


def test_towers_compute_the_same_with_attention_and_projection_in_one(random_model, monkeypatch):
    model = random_model(seed=3)
    backend, driver = backend_of(model)
    before, calls = backend.read(driver, images(5, model)), []
    monkeypatch.setattr(towers.short_attention, "fits", lambda x, heads: calls.append(x.shape) or True)
    after = backend.read(driver, images(5, model))
    assert (before.ids == after.ids).all() and len({shape[1:] for shape in calls}) == 2, "both towers"
    torch.testing.assert_close(torch.from_numpy(after.probs), torch.from_numpy(before.probs), rtol=1e-4, atol=1e-5)
