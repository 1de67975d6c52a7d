"""Registry of the prompt methods, except DePT, which wraps one of them."""

from clip.modules.prompts.base import PromptMethod
from clip.modules.prompts.baselines import FineTuning, LinearProbe
from clip.modules.prompts.coop import CoOp
from clip.modules.prompts.dcp_ablations import DCPAblation
from clip.modules.prompts.maple import MaPLe
from clip.modules.prompts.mmp import MMP, MMPAttention

METHODS: dict[str, type[PromptMethod]] = {
    "dcp": DCPAblation,  # its ``build`` returns DCP for the default settings
    "none": LinearProbe,
    "coop": CoOp,
    "mmp": MMP,
    "mmp_attention": MMPAttention,
    "maple": MaPLe,
    "finetune": FineTuning,
}
