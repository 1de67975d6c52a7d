"""Configuration of a run: all settings, including those of the registered prompt methods and backbones."""

from typing import Any

from pydantic import ValidationError, create_model, field_validator

from clip.config import BaseConfig, ex
from clip.datasets import DATASETS
from clip.modules.factory import MODELS
from clip.modules.prompts import PROMPT_TYPES
from clip.modules.prompts.base import NoSettings
from clip.utils.command_line import flatten
from clip.utils.settings import Settings, user_error

REGISTRIES = {"task": DATASETS, "backbone": MODELS, "prompt_type": PROMPT_TYPES}


class _Config(BaseConfig):
    @field_validator("task", "backbone", "prompt_type")
    @classmethod
    def _is_registered(cls, value: str, info: Any) -> str:
        registry = REGISTRIES[info.field_name]
        if value not in registry:
            raise ValueError(f"choose one of {', '.join(registry)}")
        return value

    @property
    def method_settings(self) -> Settings:
        """Settings of the selected prompt method."""
        return getattr(self, self.prompt_type, NoSettings())

    @property
    def backbone_settings(self) -> Settings:
        """Settings of the selected backbone."""
        return getattr(self, self.backbone, NoSettings())


METHOD_SETTINGS = {name: row.Settings for name, row in {**PROMPT_TYPES, **MODELS}.items()}
METHOD_SETTINGS = {name: settings for name, settings in METHOD_SETTINGS.items() if settings.model_fields}
Config = create_model(
    "Config",
    __base__=_Config,
    **{name: (settings, settings()) for name, settings in METHOD_SETTINGS.items()},
)
DEFAULTS = Config().model_dump() | {"vit": None}  # as it depends on the backbone
ex.add_config(DEFAULTS)


def make_config(values: dict[str, Any], overrides: set[str] = frozenset()) -> Config:
    """Validate settings.

    Args:
        values: nested settings as Sacred passes them; missing ones take their defaults.
        overrides: names of the settings that the user set.

    Raises:
        UserError: names the first invalid setting with its value and what is allowed.
    """
    values = {key: value for key, value in values.items() if key != "__doc__"}  # Sacred adds a preset's docstring
    try:
        return Config(**values, overrides=frozenset(overrides))
    except ValidationError as error:
        raise user_error(error) from None


def config_from_sacred(values: dict[str, Any], updates: dict[str, Any]) -> Config:
    """Validate Sacred's settings and note which of them the user or a preset set.

    Args:
        values: Sacred's ``_config``.
        updates: settings given on the command line.
    """
    defaults, flat = flatten(DEFAULTS), flatten(values)
    overrides = {key for key in flat if key != "__doc__" and flat[key] != defaults.get(key)}
    return make_config(values, overrides | set(updates) | set(flatten(updates)))
