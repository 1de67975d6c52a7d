"""Registry of the prompt methods, except DePT and DPL, which are put on top of one of them."""

from clip.modules.prompts.adapters.lora import BitFit, DoRA, LoRA
from clip.modules.prompts.adapters.mora import MoRA
from clip.modules.prompts.aoept import AOEPT
from clip.modules.prompts.base import PromptMethod
from clip.modules.prompts.baselines import FineTuning, LinearProbe
from clip.modules.prompts.coop import CoOp
from clip.modules.prompts.dcp_ablations import DCPAblation
from clip.modules.prompts.maple import MaPLe
from clip.modules.prompts.memprompt import MemPrompt
from clip.modules.prompts.mmp import MMP, MMPAttention
from clip.modules.prompts.msp import MSP

METHODS: dict[str, type[PromptMethod]] = {
    "dcp": DCPAblation,  # its ``build`` returns DCP for the default settings
    "none": LinearProbe,
    "coop": CoOp,
    "mmp": MMP,
    "mmp_attention": MMPAttention,
    "msp": MSP,  # its ``build`` returns one of two designs
    "memprompt": MemPrompt,
    "aoept": AOEPT,
    "maple": MaPLe,
    "lora": LoRA,
    "dora": DoRA,
    "bitfit": BitFit,
    "mora": MoRA,
    "finetune": FineTuning,
}
