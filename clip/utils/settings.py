"""Base class of all settings, and their validation errors as messages to the user."""

from pydantic import BaseModel, ConfigDict, ValidationError

from clip.utils.errors import UserError


class Settings(BaseModel):
    """Frozen settings; unknown keys, wrong types and values out of range are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


def user_error(error: ValidationError, prefix: str = "") -> UserError:
    """Return the first of pydantic's errors as one line that names the setting and its value."""
    first = error.errors()[0]
    key = prefix + ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        return UserError(f"{key} is not a setting; --help lists all settings")
    if first["type"] == "missing":
        return UserError(f"{key} is missing; set it")
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
    return UserError(f"{key}={first['input']!r:.200} is not valid; {message}")
