"""Base class of all settings, and their validation errors as messages to the user."""

import re

from pydantic import BaseModel, ConfigDict, ValidationError

from clip.utils.errors import UserError


class Settings(BaseModel):
    """Frozen settings; unknown keys, wrong types and values out of range are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


def user_error(error: ValidationError, prefix: str = "") -> UserError:
    """Return the first of pydantic's errors as one line that names the setting and its value."""
    errors = []
    for each in error.errors():
        # Without pydantic's names of a union's members, such as "int" and "list[str]".
        path = [str(part) for part in each["loc"] if part not in ("int", "str") and re.fullmatch(r"\w+", str(part))]
        errors.append((prefix + ".".join(path), each))
    key, first = errors[0]
    if first["type"] == "extra_forbidden":
        return UserError(f"{key} is not a setting; --help lists the settings")
    if first["type"] == "missing":
        return UserError(f"{key} is missing; set it")
    # A union of types has one error per member.
    messages = [each["msg"].removeprefix("Value error, ") for name, each in errors if name == key]
    message = " or ".join(messages).replace("Input should be", "it must be").replace("or it must", "or")
    return UserError(f"{key}={first['input']!r:.200} is not valid; {message}" if key else message)
