"""AOEPT (Lang et al., ICML 2026): prompts that read a memory of the training split, gated by the other modality."""

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from clip.missing import MISSING_IMAGE, MISSING_TEXT
from clip.modules.layers import LayerInput, bottleneck
from clip.modules.prompts import base
from clip.modules.prompts.base import IMAGE, TEXT, prompt_parameter
from clip.modules.vision_transformer_prompts import StretchedTextTransformer, TextTransformer
from clip.utils.errors import UserError
from clip.utils.settings import Settings

OTHER, MISSING = {IMAGE: TEXT, TEXT: IMAGE}, {IMAGE: MISSING_IMAGE, TEXT: MISSING_TEXT}


class AOEPTSettings(Settings):
    """Settings of AOEPT."""

    memory: int = Field(256, ge=1, description="clusters of the training split, for each layer and modality")
    reduction: int = Field(16, ge=1, description="hidden widths are those of the inputs divided by this")
    coefficient: float = Field(0.05, ge=0, description="weight of the contrastive loss")
    reading: Literal["end", "released"] = Field("end", description="text position; released: the last, with padding")


class TowerPrompts(nn.Module):
    """Prompts of one tower: own queries, and shared ones of width R, read its memory; gates read the other tower."""

    def __init__(self, depth: int, length: int, shared: int, width: int, other_width: int, settings: AOEPTSettings):
        super().__init__()

        def mlps(*args: Any) -> nn.ModuleList:
            return nn.ModuleList(bottleneck(*args) for _ in range(depth))

        self.queries, self.projections = prompt_parameter(depth, length, width), mlps(shared, width, 1)
        self.norm, self.shared_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.gates, self.shared_gates = (mlps(other_width, width, settings.reduction, nn.ReLU) for _ in range(2))
        self.register_buffer("memory", torch.zeros(depth, settings.memory, width))

    def forward(self, shared: Tensor) -> Tensor:
        """Map the shared queries (layers, P, R) to the prompts before their gates, shared and own: (layers, 2 P, D)."""
        shared = torch.stack([project(x) for project, x in zip(self.projections, shared, strict=True)])
        queries = torch.cat([shared, self.queries], dim=1)
        q, memory = (rearrange(x, "i n (h d) -> i h n d", h=8) for x in (queries, self.memory.to(queries.dtype)))
        read = rearrange(F.scaled_dot_product_attention(q, memory, memory), "i h n d -> i n (h d)")
        pairs = zip((self.shared_norm, self.norm), (read + queries).chunk(2, dim=1), strict=True)
        return torch.cat([norm(x) for norm, x in pairs], dim=1)


class AOEPT(base.PromptMethod):
    """AOEPT: own and shared prompts, half of the length each, in the first layers of both towers for all missing cases.

    The mean token of the other tower gates their channels; a gate whose source is missing is 1. A contrastive loss
    compares own prompts and mean tokens over a micro-batch. With ``missing=dummy``, as published, the tower of what is
    missing reads a dummy and the memory. With ``missing=zero`` it does not run: nothing is read for the modality.
    """

    Settings = AOEPTSettings
    unfreeze = ("ln_post", "ln_final", "image_proj", "text_proj")

    def __init__(self, config: base.PromptConfig, settings: AOEPTSettings):
        if config.single_stream:
            raise UserError("aoept needs two towers, which gate each other's prompts; choose backbone=clip or coca")
        super().__init__(config, settings)
        config.check_depth("prompt_depth", config.depth, spare=1)  # the loss reads the tokens behind the last prompts
        (length, widths), self.seed = (config.share_length(2), config.sizes.widths), config.seed
        self.settings, self.padding = settings, settings.reading == "released"
        shape = config.depth, length, max(1, widths[TEXT] // settings.reduction)
        self.shared, self.logit_scale = prompt_parameter(*shape), nn.Parameter(torch.tensor(math.log(100)))
        self.towers = nn.ModuleDict({m: TowerPrompts(*shape, d, widths[OTHER[m]], settings) for m, d in widths.items()})
        self.samples, self.own, self.terms = {}, {}, []  # of the forward pass

    @classmethod
    def tower_classes(cls, classes: base.TowerClasses, config: base.PromptConfig, settings: AOEPTSettings) -> dict:
        """Replace CLIP's text tower by the one that reads as released; see ``PromptMethod.tower_classes``."""
        if settings.reading == "released" and classes.get("text_encoder") is not TextTransformer:
            raise UserError("aoept.reading=released reads CLIP's text tower; choose backbone=clip or aoept.reading=end")
        stretched = {"text_encoder": partial(StretchedTextTransformer, num_prompts=config.length)}
        return {**classes, **(stretched if settings.reading == "released" else {})}

    def prompts_by_case(self) -> base.CasePrompts:
        """Return the prompts before their gates, the same for all missing cases, for each layer and tower."""
        return {m: [base.expand_to_cases(x[None]) for x in tower(self.shared)] for m, tower in self.towers.items()}

    def select(self, name: str, prompts: base.CasePrompts, inputs: base.TowerInput) -> list:
        """Return a function for each prompted layer, and one for the layer behind, which has no prompts of its own."""
        self.samples[name], self.terms = (inputs.rows, inputs.missing_case), []
        gated = [partial(self.gate, name, i, layer[:1]) for i, layer in enumerate(prompts[name])]
        return [*gated, partial(self.contrast, name)]

    def gate(self, name: str, layer: int, prompts: Tensor, inputs: LayerInput) -> Tensor:
        """Gate the prompts of a layer, (1, 2 P, D), by the other tower's tokens: (B, 2 P, D)."""
        if layer:
            self.contrast(name, inputs)
        (rows, case), (other_rows, _) = self.samples[name], self.samples[OTHER[name]]
        source = inputs.other.mean(self.padding)
        source = (rows[:, None] == other_rows).to(source.dtype) @ source  # zero where the other tower does not run
        present, tower = (case != MISSING[OTHER[name]])[:, None], self.towers[name]
        gates = [torch.where(present, mlps[layer](source).sigmoid(), 1) for mlps in (tower.shared_gates, tower.gates)]
        shared, own = (gate[:, None] * part for gate, part in zip(gates, prompts.chunk(2, dim=1), strict=True))
        self.own[name] = own.mean(1)
        return torch.cat([shared, own], dim=1)

    def contrast(self, name: str, behind: LayerInput) -> None:
        """Add a term of the loss (InfoNCE): mean own prompts of a layer and mean tokens behind it, sample by sample."""
        # In 64 bit, since autocast would round the products of 32 bit to 16.
        own, tokens = F.normalize(self.own[name].double(), dim=1), behind.mean(self.padding).detach().double()
        present = self.samples[name][1] != MISSING[name]
        itself = torch.eye(len(own), dtype=torch.bool, device=own.device)
        logits = self.logit_scale.exp() * own @ F.normalize(tokens, dim=1).T
        logits = logits.masked_fill(~(present | itself), -torch.inf)
        term = -(logits.log_softmax(1).diagonal() * present).sum() / present.sum().clamp(min=1)
        self.terms.append(torch.stack([term, present.sum() > 1]))

    def auxiliary_loss(self) -> Tensor:
        """Return the weighted mean of the terms, those of at least two samples."""
        terms, counts = torch.stack(self.terms).unbind(1)
        return self.settings.coefficient * ((terms * counts).sum() / counts.sum().clamp(min=1)).float()

    def prepare(self, model: nn.Module, batches: Iterable[Any]) -> None:
        """Fill the memory: k-means of the mean tokens that enter each layer of the plain backbone; if few, repeated."""
        from sklearn.cluster import KMeans  # takes seconds
        from threadpoolctl import threadpool_limits

        layers = {name: [([], slots) for slots in tower.memory] for name, tower in self.towers.items()}
        for image, tokens, case, _ in batches:
            x, ids = model.image_encoder.embed(image[case != MISSING_IMAGE]), tokens[case != MISSING_TEXT]
            texts = model.text_encoder.encode(model.text_encoder.embed(ids), [], ids, ids.shape[1])
            for name, run in {IMAGE: model.image_encoder.encode(x, []), TEXT: texts}.items():
                for (means, _), inputs in zip(layers[name], run, strict=False):
                    means.append(inputs.mean().float().cpu())
        counts = " and ".join(f"{sum(map(len, tower[0][0]))} {name}s" for name, tower in layers.items())
        print(f"k-means of {counts}, {self.settings.memory} clusters in each of {len(self.shared)} layers", flush=True)
        jobs = [(torch.cat(x), slots) for tower in layers.values() for x, slots in tower if any(map(len, x))]
        models = [KMeans(min(map(len, job)), n_init=10, random_state=self.seed) for job in jobs]
        # One thread for each layer, since several threads would add the samples of a layer in a random order.
        with ThreadPoolExecutor(initializer=threadpool_limits, initargs=(1, "openmp")) as pool:
            done = pool.map(KMeans.fit, models, [samples.numpy() for samples, _ in jobs])
            for fit, (_, slots) in zip(tqdm(done, "k-means", len(jobs), unit="layer", disable=None), jobs, strict=True):
                slots.copy_(torch.from_numpy(fit.cluster_centers_)[torch.arange(len(slots)) % fit.n_clusters])
