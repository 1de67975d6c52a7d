"""Every row of the table of methods, and every setting of each, against oracles and by hand."""

import pytest
import torch
import torch.nn.functional as F

from clip.config import OptimizerSettings
from clip.missing import COMPLETE, MISSING_IMAGE, MISSING_TEXT
from clip.modules import build_model
from clip.modules.clip_missing_aware_prompt_module import MissingAwarePromptModule
from clip.modules.layers import Attention, Prefix, ResidualAttentionBlock
from clip.modules.objectives import TASKS
from clip.modules.prompts import PROMPT_TYPES, PromptConfig, TowerInput
from clip.modules.prompts.base import weighted_sum
from clip.utils.errors import UserError
from tests import tiny
from tests.oracles.clip import SlowModel

MIXED = [COMPLETE, MISSING_TEXT, MISSING_IMAGE, COMPLETE, MISSING_IMAGE]
SETTINGS = [  # besides the defaults of every method
    ("coop", {"per_case": True}),
    ("maple", {"per_case": True}),
    ("dept", {"base": "dcp", "weight": 0.2}),
    ("dcp", {"generator": "fc"}),
    ("dcp", {"generator": "none"}),
    ("dcp", {"reduction": 4}),
    ("dcp", {"source": "own"}),
    ("dcp", {"source": "own", "formulas": "paper", "generator": "fc"}),
    ("dcp", {"dynamic_depth": 2}),
    ("dcp", {"dynamic_depth": 3, "common_depth": 3}),
    ("dcp", {"dynamic_generator": "max", "dynamic_depth": 2}),
    ("dcp", {"dynamic_generator": "min"}),
    ("dcp", {"dynamic_generator": "avg", "dynamic_depth": 3}),
    ("dcp", {"common_depth": 3, "dynamic_depth": 2, "prompt_depth": 1}),
    ("dcp", {"common_projection": "fc"}),
    ("dcp", {"common_reduction": 4}),
    ("dcp", {"prompts": "none"}),
    ("dcp", {"prompts": "A"}),
    ("dcp", {"prompts": "B"}),
    ("dcp", {"formulas": "paper"}),
    ("dcp", {"formulas": "paper", "prompts": "A", "prompt_depth": 1}),
    ("dcp", {"dynamic_queries": "fixed", "seed": 4}),
    ("msp", {"attention": False}),
    ("lora", {"projections": "k", "layers": 3, "rank": 2, "alpha": 9.0}),
    ("dora", {"projections": "qkv"}),
    ("bitfit", {"projections": "v", "layers": 3}),
    ("mora", {"projections": "kv", "rank": 3, "alpha": 0.1, "start": "mild"}),
    ("dpl", {"base": "mmp"}),
    ("aoept", {"reading": "released"}),
]
ROWS = [*((name, {}) for name in PROMPT_TYPES), *SETTINGS]
OTHER = {"prompt_length": 12, "prompt_depth": 3}  # on tiny.OTHER
LABELS = (torch.arange(25).view(5, 5) % 3 == 0).float()
STATES = {sizes: tiny.clip_state(sizes) for sizes in (tiny.SIZES, tiny.OTHER)}


def build(prompt_type, sizes=tiny.SIZES, draw=3, **changes):
    torch.manual_seed(draw)
    changes = {"prompt_length": tiny.LENGTH, "prompt_depth": tiny.DEPTH} | changes
    return build_model(STATES[sizes], prompt_type, 5, **changes).eval()


def moved(model):
    """Every trainable value away from its start, so that a forgotten one shows."""
    with torch.no_grad():
        for name in model.trainable_names():
            parameter = model.get_parameter(name)
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def with_auxiliary(model, loss):
    """Add the auxiliary loss, in which alone some parameters may be, to the loss of the last forward pass."""
    auxiliary = model.prompts.auxiliary_loss()
    return loss if auxiliary is None else loss + auxiliary


def gradients(model, loss):
    named = dict(model.named_parameters())
    parameters = [named[name] for name in model.trainable_names()]
    return torch.autograd.grad(loss, parameters)


def assert_same(model, found, wanted):
    """Compare logits, loss and the gradients of the loss with those of an oracle, given logits and loss of both."""
    for name, ours, theirs in zip(("logits", "loss"), found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5, msg=name)
    slopes = [gradients(model, loss) for _, loss in (found, wanted)]
    for name, ours, theirs in zip(model.trainable_names(), *slopes, strict=True):
        assert theirs.abs().max() > 0, name
        torch.testing.assert_close(ours, theirs, atol=2e-4 * float(theirs.abs().max()), rtol=0, msg=name)


def with_loss(model, heads, cases):
    """Return the logits of heads and their loss."""
    task_loss = F.binary_cross_entropy_with_logits
    return weighted_sum(heads), model.prompts.loss(heads, LABELS[: len(cases)], cases, task_loss)


@pytest.mark.parametrize(
    ("name", "settings", "sizes", "cases"),
    [
        *((*row, tiny.SIZES, MIXED) for row in ROWS if row[0] != "aoept"),  # it has an oracle of its own
        *((name, OTHER, tiny.OTHER, MIXED[1:4]) for name in PROMPT_TYPES if name != "aoept"),
        *(("dcp", OTHER | more, tiny.OTHER, MIXED) for more in ({"formulas": "paper"}, {"prompts": "B"})),
    ],
)
def test_logits_loss_and_gradients_equal_the_slow_form(name, settings, sizes, cases):
    model = moved(build(name, sizes, **settings))
    inputs = tiny.batch(cases, sizes)
    both = [with_loss(model, form.heads(*inputs), inputs[2]) for form in (model, SlowModel(model))]
    assert both[0][0].shape == (len(cases), 5)
    assert_same(model, *both)


@pytest.mark.parametrize("placeholder", ["white", "black", "mean"])
@pytest.mark.parametrize("name", ["dcp", "none", "mora"])
def test_dummies_equal_the_slow_form_and_what_is_missing_is_not_read(name, placeholder):
    model = moved(build(name, backbone_settings={"missing": "dummy", "placeholder": placeholder}))
    image, tokens, case = tiny.batch(MIXED)
    found, wanted = model(image, tokens, case), SlowModel(model)(image, tokens, case)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert (model.features(image, tokens, case).unflatten(1, (2, -1)).abs().amax(dim=2) > 0).all()
    image[case == MISSING_IMAGE] = torch.nan
    tokens[case == MISSING_TEXT, 1:] = tokens[0, 1:]
    assert torch.equal(model(image, tokens, case), found)
    only = tiny.batch([MISSING_TEXT] * 2)
    torch.testing.assert_close(model(*only), SlowModel(model)(*only), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "settings"), ROWS)
def test_two_steps_move_everything_and_reload(name, settings):
    """With the defaults' learning rate; the saved tensors alone bring the logits back."""
    model = build(name, **settings).train()
    before = {key: tensor.clone() for key, tensor in model.adapter_state_dict().items()}
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)
    inputs = tiny.batch(MIXED)
    for _ in range(2):
        loss = sum(weight * logits.pow(2).mean() for weight, logits in model.heads(*inputs))
        loss = with_auxiliary(model, loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
    for key in model.trainable_names():
        assert not torch.equal(before[key], model.adapter_state_dict()[key]), key
    other = build(name, draw=8, **settings)
    assert not torch.equal(other(*inputs), model(*inputs))
    other.load_adapter(model.adapter_state_dict(), "memory")
    assert torch.equal(other(*inputs), model.eval()(*inputs))


@pytest.mark.parametrize("name", PROMPT_TYPES)
def test_a_missing_half_is_exactly_zero_and_its_input_is_not_read(name):
    model = moved(build(name))
    image, tokens, case = tiny.batch(MIXED)
    features, logits = model.features(image, tokens, case), model(image, tokens, case)
    image_half, text_half = features.chunk(2, dim=1)
    for half, absent in ((image_half, MISSING_IMAGE), (text_half, MISSING_TEXT)):
        assert ((half == 0).all(dim=1) == (case == absent)).all()
    image[case == MISSING_IMAGE] = torch.nan
    tokens[case == MISSING_TEXT] = 1 + tokens[0]
    assert torch.equal(model.features(image, tokens, case), features)
    assert torch.equal(model(image, tokens, case), logits)


@pytest.mark.parametrize("absent", [MISSING_TEXT, MISSING_IMAGE])
@pytest.mark.parametrize(("name", "settings"), ROWS)
def test_a_batch_without_a_modality_gives_zero_gradients_not_none(name, settings, absent):
    model = build(name, **settings)
    with_auxiliary(model, model(*tiny.batch([absent] * 3)).sum()).backward()
    named = dict(model.named_parameters())
    assert [key for key in model.trainable_names() if named[key].grad is None] == []


@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_every_setting_changes_the_output(name, settings):
    inputs = tiny.batch(MIXED)
    default, changed = moved(build(name)), moved(build(name, **settings))
    assert (default(*inputs) - changed(*inputs)).abs().max() > 1e-4


def test_dcp_without_prompts_is_the_baseline():
    inputs = tiny.batch(MIXED)
    dcp, none = build("dcp", prompts="none"), build("none")
    assert torch.equal(dcp(*inputs), none(*inputs))
    assert list(dcp.prompts.state_dict()) == []


def test_kinds_that_go_deepest_stand_first():
    """Three common layers, two dynamic, one correlated; what is replaced must stand first."""
    model = build("dcp", common_depth=3, dynamic_depth=2, prompt_depth=1, prompt_length=3)
    dcp, tokens = model.prompts, torch.randn(1, 4, tiny.SIZES.text_width)
    cases = dcp.prompts_by_case()
    inputs = TowerInput(tokens, torch.tensor([MISSING_IMAGE]))
    layers = dcp.select("text", cases, inputs)
    assert [layer.shape[1] for layer in layers] == [3, 2, 1]
    common = dcp.projections["text"](dcp.common[MISSING_IMAGE])
    read = dcp.dynamic["text"](inputs)[0]
    for layer in range(3):
        torch.testing.assert_close(layers[layer][0, 0], common[layer])
    for layer in range(2):
        torch.testing.assert_close(layers[layer][0, 1], read[layer])


def test_the_coupling_of_maple():
    method = build("maple", per_case=True).prompts
    cases = method.prompts_by_case()
    for layer, couple in enumerate(method.couplings):
        text = method.text[layer, MISSING_TEXT]
        wanted = text @ couple.weight.T + couple.bias
        torch.testing.assert_close(cases["image"][layer][MISSING_TEXT], wanted)
        assert torch.equal(cases["text"][layer][MISSING_TEXT], text)


def test_the_mixed_heads_of_dept():
    model = moved(build("dept", weight=0.25))
    method, inputs = model.prompts, tiny.batch(MIXED)
    features = model.features(*inputs)
    adjusted = features * method.scale + method.shift
    own = adjusted @ method.classifier.weight.T + method.classifier.bias
    plain = features @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model(*inputs), 0.25 * own + 0.75 * plain)
    (first, a), (second, b) = model.heads(*inputs)
    assert (first, second) == (0.25, 0.75)
    torch.testing.assert_close((a, b), (own, plain))


def test_the_loss_of_a_run_is_mixed_like_the_scores(monkeypatch):
    model, task = moved(build("dept", weight=0.25)), TASKS["food101"]
    module = MissingAwarePromptModule(model, task, OptimizerSettings(), lambda image: image, {})
    for log in ("log", "log_dict"):  # there is no Trainer
        monkeypatch.setattr(module, log, lambda *_, **__: None)
    image, tokens, case = tiny.batch(MIXED)
    label = torch.tensor([0, 1, 2, 3, 4])
    batch = {"image": image, "tokens": tokens, "missing_type": case, "present": None,
             "label": label, "sample_id": torch.arange(len(label))}  # fmt: skip
    (_, own), (_, plain) = model.heads(image, tokens, case)
    wanted = 0.25 * F.cross_entropy(own, label) + 0.75 * F.cross_entropy(plain, label)
    torch.testing.assert_close(module.model_step(batch, "train/"), wanted)
    assert (wanted - F.cross_entropy(model(image, tokens, case), label)).abs() > 1e-6


def test_a_prefix_by_hand():
    """One channel per head would do: two positions, one prefix, scores of known softmax."""
    attention = Attention(2, heads=1)
    with torch.no_grad():
        attention.in_proj_weight.copy_(torch.eye(2).repeat(3, 1))
        attention.out_proj.weight.copy_(torch.eye(2))
    x = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
    prefix = Prefix(torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[5.0, 7.0]]]))
    found = attention(x, causal=True, prefix=prefix)
    first = F.softmax(torch.tensor([0.0, 4.0]) / 2**0.5, dim=0)  # the prefix, itself
    second = F.softmax(torch.tensor([2.0, 0.0, 1.0]) / 2**0.5, dim=0)
    wanted = torch.stack([
        first[0] * prefix.values[0, 0] + first[1] * x[0, 0],
        second[0] * prefix.values[0, 0] + second[1] * x[0, 0] + second[2] * x[0, 1],
    ])  # fmt: skip
    torch.testing.assert_close(found[0], wanted)


@pytest.mark.parametrize("causal", [False, True])
def test_the_pooled_position_sees_the_whole_prefix(causal):
    torch.manual_seed(0)
    block, x, position = ResidualAttentionBlock(128, "gelu"), torch.randn(2, 5, 128), [4, 2]
    prefix = Prefix(torch.randn(2, 3, 128), torch.randn(2, 3, 128))
    every = block(x, causal, prefix, 0, None, None)
    one = block.pool(x, torch.tensor(position), causal, prefix, None, None)
    torch.testing.assert_close(one, every[[0, 1], position])
    assert (one - block.pool(x, torch.tensor(position), causal, None, None, None)).abs().max() > 1e-2


def test_fine_tuning_trains_all_of_clip():
    model = build("finetune")
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert set(model.adapter_state_dict()) == set(model.state_dict())


def test_parameter_counts_on_vit_b_16():
    """MMP's 23,040 parameters a token (paper, Table 5), and the others by their definition."""
    counts = {}
    for name in ("coop", "mmp", "mmp_attention", "maple"):
        frame = PromptConfig(tiny.VIT_B_16, length=36, depth=6)
        method = PROMPT_TYPES[name](frame, PROMPT_TYPES[name].Settings())
        counts[name] = sum(parameter.numel() for parameter in method.parameters())
    assert counts == {
        "coop": 36 * (768 + 512),
        "mmp": 36 * 23_040,
        "mmp_attention": 36 * 23_040,
        "maple": 6 * (36 * 512 + 512 * 768 + 768),
    }


@pytest.mark.parametrize(
    ("name", "changes", "named"),
    [
        ("mmp_attention", {"prompt_length": 7}, "prompt_length=7"),
        ("dcp", {"prompt_length": 7}, "prompt_length=7"),
        ("dcp", {"prompt_length": 2}, "prompt_length=2"),
        ("dcp", {"prompt_depth": 4}, "prompt_depth=4"),
        ("mmp", {"prompt_depth": 4}, "prompt_depth=4"),
        ("maple", {"prompt_depth": 4}, "prompt_depth=4"),
        ("aoept", {"prompt_depth": 3}, "prompt_depth=3"),
        ("aoept", {"prompt_length": 7}, "prompt_length=7"),
        ("dcp", {"common_depth": 4}, "dcp.common_depth=4"),
        ("dcp", {"dynamic_depth": 4}, "dcp.dynamic_depth=4"),
        ("dcp", {"prompts": "C"}, "dcp.prompts='C'"),
        ("dcp", {"generator": "lstm"}, "dcp.generator='lstm'"),
        ("dcp", {"reduction": 2.5}, "dcp.reduction=2.5"),
        ("dcp", {"reduction": 0}, "dcp.reduction=0"),
        ("coop", {"depth": 1}, "coop.depth"),
        ("coop", {"per_case": 1}, "coop.per_case=1"),
        ("none", {"prompts": "A"}, "none.prompts"),
        ("dept", {"base": "dept"}, "dept.base='dept'"),
        ("dept", {"weight": 1}, "dept.weight=1"),
        ("dcp", {"unfreeze": ("head",)}, "unfreeze=['head']"),
    ],
)
def test_invalid_settings_are_named_with_their_values(name, changes, named):
    with pytest.raises(UserError) as error:
        build(name, **changes)
    assert named in str(error.value)
    assert "\n" not in str(error.value)
