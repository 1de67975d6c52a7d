"""Base class of all settings, and their validation errors as messages to the user."""

from pydantic import BaseModel, ConfigDict, ValidationError

from clip.utils.errors import UserError


class Settings(BaseModel):
    """Frozen settings; unknown keys, wrong types and values out of range are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


def user_error(error: ValidationError, prefix: str = "") -> UserError:
    """Return the first of pydantic's errors as one line that names the setting and its value."""
    errors = [(prefix + ".".join(_path(each["loc"])), each) for each in error.errors()]
    key, first = errors[0]
    if first["type"] == "extra_forbidden":
        return UserError(f"{key} is not a setting; --help lists the settings")
    if first["type"] == "missing":
        return UserError(f"{key} is missing; set it")
    # A union of types has one error per member.
    messages = [
        each["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
        for name, each in errors
        if name == key
    ]
    if not key:
        return UserError(messages[0])
    return UserError(f"{key}={first['input']!r:.200} is not valid; {' or '.join(messages).replace('or it must', 'or')}")


def _path(location: tuple) -> list[str]:
    """Drop pydantic's names of a union's members, such as "int" and "list[str]"."""
    return [
        str(part) for part in location if isinstance(part, int) or (part.isidentifier() and part not in ("int", "str"))
    ]
