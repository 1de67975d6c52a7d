"""The prompts of one sample, method by method, written from the papers without any economy.

A function a method: (the method, whose parameters are used; the sample's missing case; its tokens
X_0, tower -> (1, L, D)) -> tower -> layer -> prompts (P, D), or keys and values (P, D) each.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clip.missing import MISSING_IMAGE, MISSING_TEXT
from clip.modules.layers import Attention
from clip.modules.prompts import PROMPT_TYPES, PromptMethod
from clip.modules.prompts.adapters.lora import BitFit, DoRA
from clip.modules.prompts.adapters.mora import MoRA
from clip.modules.prompts.dcp import DCP, DynamicPrompts
from clip.modules.prompts.dcp_ablations import KINDS, DCPSettings, adaptive_min_pool1d
from clip.modules.prompts.msp import MSPAttention

Tokens = dict[str, Tensor]
Sample = dict[str, list[Tensor | tuple[Tensor, Tensor]]]
TOWERS = ("image", "text")
POOLS = {  # ours, of all stretches at once -> the same of one stretch (L, D)
    F.adaptive_avg_pool1d: lambda stretch: stretch.mean(dim=0),
    F.adaptive_max_pool1d: lambda stretch: stretch.amax(dim=0),
    adaptive_min_pool1d: lambda stretch: stretch.amin(dim=0),
}


def attention(ours: Attention, heads: int) -> nn.MultiheadAttention:
    """Make torch's own attention module around the very parameters of ours."""
    width = ours.out_proj.in_features
    with torch.device("meta"):
        module = nn.MultiheadAttention(width, heads, batch_first=True)
    module.in_proj_weight, module.in_proj_bias = ours.in_proj_weight, ours.in_proj_bias
    module.out_proj.weight, module.out_proj.bias = ours.out_proj.weight, ours.out_proj.bias
    return module


def settings_of(dcp: PromptMethod) -> DCPSettings:
    """Return the settings of an ablation, or the defaults for the plain method."""
    return DCPSettings() if isinstance(dcp, DCP) else dcp.settings


def third_of(dcp: PromptMethod) -> int:
    """Return the number of prompts of each kind."""
    return dcp.common.shape[1] if isinstance(dcp, DCP) else dcp.third


def correlated(dcp: PromptMethod, case: int) -> Sample:
    """Make the correlated prompts: eq. 3-5 in either reading, or independent ones."""
    missing = {"image": MISSING_IMAGE, "text": MISSING_TEXT}
    settings, layers = settings_of(dcp), {}
    free_input = settings.formulas == "paper" or settings.generator == "none"
    for tower in TOWERS:
        row = case if free_input else int(case == missing[tower])
        start = dcp.initial[tower][row]  # one layer, or all if nothing generates them
        layers[tower] = list(start.split(third_of(dcp)))
    for step in range(len(dcp.generators["image"]) if len(dcp.generators) else 0):
        last = {tower: layers[tower][-1] for tower in TOWERS}
        for tower in TOWERS:
            both = settings.source == "both"
            read = torch.cat([last["image"], last["text"]], dim=-1) if both else last[tower]
            layers[tower].append(dcp.generators[tower][step](read))
    return layers if free_input else {t: layers[t][1:] for t in TOWERS}


def dynamic(reader: nn.Module, case: int, tokens: Tensor) -> Tensor:
    """Make the dynamic prompts of all their layers, one below the other."""
    if isinstance(reader, DynamicPrompts):
        queries = reader.queries[case][None]
        read, _ = attention(reader.attention, 1)(queries, tokens, tokens, need_weights=False)
        return reader.refine(read)[0] if hasattr(reader, "refine") else read[0]
    x, length = tokens[0], reader.length
    stretches = [x[i * len(x) // length : -(-(i + 1) * len(x) // length)] for i in range(length)]
    pooled = torch.stack([POOLS[reader.pool](stretch) for stretch in stretches])
    weights, biases = reader.projection.weight, reader.projection.bias
    width = x.shape[1]
    parts = zip(weights.split(width), biases.split(width), strict=True)
    return torch.cat([pooled @ weight.T + bias for weight, bias in parts])


def dcp_prompts(dcp: PromptMethod, case: int, tokens: Tokens) -> Sample:
    """Join the three kinds, in each layer those that go deepest first."""
    kinds, made = KINDS[settings_of(dcp).prompts], {}
    if "correlated" in kinds:
        made["correlated"] = correlated(dcp, case)
    if "common" in kinds:
        made["common"] = {t: dcp.projections[t](dcp.common[case]).split(third_of(dcp)) for t in TOWERS}
    if "dynamic" in kinds:
        made["dynamic"] = {t: dynamic(dcp.dynamic[t], case, tokens[t]).split(third_of(dcp)) for t in TOWERS}
    out = {}
    for tower in TOWERS:
        kinds = sorted((layers[tower] for layers in made.values()), key=len, reverse=True)
        deepest = len(kinds[0]) if kinds else 0
        out[tower] = [torch.cat([layers[i] for layers in kinds if i < len(layers)]) for i in range(deepest)]
    return out


def of_case(sets: Tensor, case: int) -> Tensor:
    """Choose from one set for all cases, or one of three."""
    return sets[case] if len(sets) == 3 else sets[0]


def coop_prompts(coop: PromptMethod, case: int, tokens: Tokens) -> Sample:
    """Take the context of layer 0."""
    return {tower: [of_case(context, case)] for tower, context in coop.context.items()}


def mmp_prompts(mmp: PromptMethod, case: int, tokens: Tokens) -> Sample:
    """Take the case's prompts of every layer."""
    return {tower: [layer[case] for layer in layers] for tower, layers in mmp.layers.items()}


def mmp_prefixes(mmp: PromptMethod, case: int, tokens: Tokens) -> Sample:
    """Take the first half as keys, the second as values."""
    rows = mmp_prompts(mmp, case, tokens)
    return {tower: [row.chunk(2) for row in of_tower] for tower, of_tower in rows.items()}


def msp_prompts(msp: PromptMethod, case: int, tokens: Tokens) -> Sample:
    """Take the set of what is missing, or the sum of both; keys and values in the attention design."""
    rows = {}
    for tower, layers in msp.layers.items():
        rows[tower] = [sets[0] + sets[1] if case == 0 else sets[int(case == MISSING_IMAGE)] for sets in layers]
        if isinstance(msp, MSPAttention):
            rows[tower] = [row.chunk(2) for row in rows[tower]]
    return rows


def maple_prompts(maple: PromptMethod, case: int, tokens: Tokens) -> Sample:
    """Couple the image prompts to the text prompts."""
    text = [of_case(layer, case) for layer in maple.text]
    image = [row @ couple.weight.T + couple.bias for row, couple in zip(text, maple.couplings, strict=True)]
    return {"image": image, "text": text}


def read_memory(memory: nn.Module, query: Tensor) -> Tensor:
    """Read the five slots of the largest cosines, one after the other."""
    cosines = torch.stack([query @ key / query.norm() / key.norm() for key in memory.keys])
    chosen = sorted(range(len(cosines)), key=lambda j: -cosines[j].item())[:5]
    total = sum(cosines[j].exp() for j in chosen)
    return sum(cosines[j].exp() / total * memory.prompts[j] for j in chosen)


def memprompt_layer(method: PromptMethod, modality: str, layer: int, case: int, x: Tensor) -> Tensor:
    """Make the prompts of one modality and layer, its own and the shared ones, from its tokens (L, D)."""
    start = {MISSING_TEXT: method.missing_text[layer], MISSING_IMAGE: method.missing_image[layer]}
    start = start.get(case, method.missing_text[layer] + method.missing_image[layer])
    return torch.cat([read_memory(method.memories[modality][layer], x.amax(0)), method.shared[modality][layer](start)])


def memprompt_prompts(method: PromptMethod, case: int, tokens: Tokens) -> Sample:
    """Return a function of a layer's tokens (L, D) for each tower and layer."""
    return {
        tower: [partial(memprompt_layer, method, tower, i, case) for i in range(len(method.missing_text))]
        for tower in TOWERS
    }


def no_prompts(none: PromptMethod, case: int, tokens: Tokens) -> Sample:
    """Leave both towers alone."""
    return {tower: [] for tower in TOWERS}


MAKERS: dict[str, Callable[[PromptMethod, int, Tokens], Sample]] = {
    "dcp": dcp_prompts,
    "none": no_prompts,
    "finetune": no_prompts,
    "coop": coop_prompts,
    "mmp": mmp_prompts,
    "mmp_attention": mmp_prefixes,
    "msp": msp_prompts,
    "memprompt": memprompt_prompts,
    "maple": maple_prompts,
    "lora": no_prompts,
    "dora": no_prompts,
    "bitfit": no_prompts,
    "mora": no_prompts,
    "dpl": lambda dpl, case, tokens: sample_prompts(dpl.base, case, tokens),
    "dept": lambda dept, case, tokens: sample_prompts(dept.base, case, tokens),
}


def sample_prompts(method: PromptMethod, case: int, tokens: Tokens) -> Sample:
    """Make one sample's prompts with the function of its method."""
    names = {kind: name for name, kind in PROMPT_TYPES.items()} | {DCP: "dcp", MSPAttention: "msp"}
    return MAKERS[names[type(method)]](method, case, tokens)


def column_norms(weight: Tensor) -> Tensor:
    """Return the norm of each column of (out, in)."""
    return torch.stack([column.square().sum().sqrt() for column in weight.T])


def changed_projection(method: PromptMethod, tower: str, layer: int, weight: Tensor, bias: Tensor) -> tuple:
    """Return the projection (3 D, D), (3 D,) of one layer as LoRA, DoRA, BitFit or MoRA change it."""
    out = {}
    for name, w, b in zip("qkv", weight.chunk(3), bias.chunk(3), strict=True):
        key = f"{tower}_{layer}_{name}"
        if name not in method.projections or layer not in method.layers[tower]:
            out[name] = w, b
        elif isinstance(method, BitFit):
            out[name] = w, b + method.offset[key]
        elif isinstance(method, MoRA):
            text, image = (method.shared[f"{t}_{layer - method.layers[tower][0]}"] for t in ("text", "image"))
            gram = text @ image.T @ image @ text.T if tower == "text" else image @ text.T @ text @ image.T
            first, second = w + method.alpha * gram, w + method.alpha * (method.own_in[key] @ method.own_out[key]).T
            first, second = first / column_norms(first), second / column_norms(second)
            out[name] = first * method.shared_magnitude[key] + second * method.own_magnitude[key], b
        else:
            w = w + method.scale * (method.b[key] @ method.a[key])
            out[name] = (w / column_norms(w) * method.magnitude[key] if isinstance(method, DoRA) else w), b
    return torch.cat([w for w, _ in out.values()]), torch.cat([b for _, b in out.values()])
