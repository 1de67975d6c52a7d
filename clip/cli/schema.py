"""Configuration of a run: all settings, including those of the registered prompt methods and backbones."""

import importlib
import sys
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError, create_model, field_validator

from clip.config import BaseConfig, as_list, ex
from clip.datasets import DATASETS
from clip.modules.factory import MODELS
from clip.modules.prompts import PROMPT_TYPES
from clip.modules.prompts.base import NoSettings
from clip.utils.command_line import flatten
from clip.utils.errors import UserError
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


Config: type[_Config]
METHOD_SETTINGS: dict[str, type[Settings]] = {}
DEFAULTS: dict[str, Any] = {}  # nested settings with their default values


def _build_schema() -> None:
    """Build ``Config`` from the registries and tell Sacred the defaults."""
    global Config
    rows = {name: row.Settings for name, row in {**PROMPT_TYPES, **MODELS}.items()}
    METHOD_SETTINGS.update({name: settings for name, settings in rows.items() if settings.model_fields})
    groups = {name: (settings, settings()) for name, settings in METHOD_SETTINGS.items()}
    Config = create_model("Config", __base__=_Config, **groups)
    DEFAULTS.update(Config().model_dump() | {"vit": None})  # as it depends on the backbone
    ex.add_config(DEFAULTS)


_build_schema()


def import_plugins(names: Iterable[str]) -> None:
    """Import modules that add rows to the registries, and rebuild ``Config`` with the settings of their methods."""
    new = [name for name in names if name not in sys.modules]
    for name in new:
        if name.partition(".")[0] in sys.stdlib_module_names:  # some do more than define names
            raise UserError(f"plugins={name} is a module of Python; name a module of your own")
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001  the module is the user's code
            reason = f"{type(error).__name__}: {error}"
            raise UserError(
                f"plugins={name} cannot be imported ({reason:.200}); correct it or add its folder to PYTHONPATH"
            ) from None
    if new:
        _build_schema()


def make_config(values: dict[str, Any], overrides: set[str] = frozenset()) -> Config:
    """Validate nested settings; a UserError names the first invalid one with its value and what is allowed.

    Missing settings take their defaults; ``overrides`` are the names of those that the user set.
    """
    values = {key: value for key, value in values.items() if key != "__doc__"}  # Sacred adds a preset's docstring
    plugins = as_list(values.get("plugins", []))
    if isinstance(plugins, list) and all(isinstance(name, str) for name in plugins):
        import_plugins(plugins)
    try:
        return Config(**values, overrides=frozenset(overrides))
    except ValidationError as error:
        raise user_error(error) from None


def config_from_sacred(values: dict[str, Any], updates: dict[str, Any]) -> Config:
    """Validate Sacred's ``_config`` and note what a preset or the user (``updates``, of the command line) set."""
    defaults, flat = flatten(DEFAULTS), flatten(values)
    overrides = {key for key in flat if key != "__doc__" and flat[key] != defaults.get(key)}
    return make_config(values, overrides | set(flatten(updates)))
