"""Conventions of the dbt project that dbt-bouncer has no check for; dbt-bouncer.yml names them.

The name of a check's first argument says over what it is repeated.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

from dbt_bouncer.check_framework.decorator import check, fail

SQL_WORDS = (
    r"(?:with|select|from|where|and|or|on|(?:inner |left |right |full |cross )?join|union all"
    r"|group by|order by|limit|case|when|else|end)"
)
DEAD_CODE = re.compile(
    rf"^\s*--\s*(?:{SQL_WORDS}|{SQL_WORDS.upper()})\b.*[=(<>{{*]"
    rf"|^\s*--\s*(?:from|FROM|(?:inner |left )?join) [\w.\"]+\s*$"
    r"|^\s*--\s*[\w.\"]+(?: as \w+)?,\s*$|^\s*--.*;\s*$|^\s*--\s*\{%|\{#[^#]*\{[{%]",
    re.MULTILINE,
)
"""A comment that holds SQL or Jinja, rather than a sentence about it, which has a capital."""

DISPATCHED = re.compile(r"^(?:default|postgres|bigquery|test)__?")


@check
def check_source_says_its_grain(source: Any) -> None:
    """The description of a table opens with what its row is."""
    if not re.match(r"One row( per |: )", source.description or ""):
        fail(f"`{source.source_name}.{source.name}` does not say what one row is: `One row per …`")


@check
def check_model_has_an_owner(model: Any, ctx: Any) -> None:
    """A model belongs to a group, and the group has an owner with a name."""
    groups = {group.name: group for group in ctx.manifest_obj.manifest.groups.values()}
    group = groups.get(model.config.group)
    if group is None or not group.owner.name:
        fail(f"`{model.name}` is in no group of models/_groups.yml that names its owner")


@check
def check_properties_file_of_folder(model: Any) -> None:
    """A model is described in its folder's one file, `_<folder>__models.yml`."""
    folder = PurePosixPath(model.original_file_path).parent
    wanted = folder / f"_{folder.name}__models.yml"
    described = (model.patch_path or "").split("://")[-1]
    if described != str(wanted):
        fail(f"`{model.name}` is to be described in {wanted}, not in {described or 'no file'}")


@check
def check_macro_is_in_its_file(macro: Any) -> None:
    """A macro stands in the file of its name, and is described in its folder's one file."""
    path = PurePosixPath(macro.original_file_path)
    if DISPATCHED.sub("", macro.name) != DISPATCHED.sub("", path.stem):
        fail(f"the macro `{macro.name}` stands in {path}: a macro has a file of its name")
    described = PurePosixPath((macro.patch_path or "").split("://")[-1])
    kind = "macros" if path.parts[0] == "macros" else "tests"
    wanted = path.parent / f"_{path.parent.name}__{kind}.yml"
    if described != wanted:
        fail(f"the macro `{macro.name}` is to be described in {wanted}, not in {described}")


@check
def check_macro_arguments_have_types(macro: Any) -> None:
    """Each argument that a macro's description lists has a type."""
    if bare := [argument.name for argument in macro.arguments if not argument.type]:
        fail(f"the macro `{macro.name}` has arguments without a type: {', '.join(bare)}")


@check
def check_model_has_no_dead_code(model: Any) -> None:
    """A model holds no code that is commented out."""
    if found := DEAD_CODE.search(model.raw_code or ""):
        fail(f"`{model.name}` has code that is commented out: {found.group().strip()!r}")


@check
def check_macro_has_no_dead_code(macro: Any) -> None:
    """A macro holds no code that is commented out."""
    if found := DEAD_CODE.search(macro.macro_sql):
        fail(f"the macro `{macro.name}` has code that is commented out: {found.group().strip()!r}")
