"""The form of a catalog document, as a pydantic model: the definition, the explainer, the JSON Schema.

A restore does not pay for it: :func:`holo.catalog.parse_quickly` accepts well-formed documents without it,
and tests hold the two to the same verdicts.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from holo.errors import CatalogInvalid, NewerFormat

VERSION = 2
Kind: TypeAlias = Literal["text", "binary", "data", "bytecode", "zipapp", "opaque"]

# A name is one component. Bytes that are not UTF-8 are written \xNN and a backslash is doubled.
Name = Annotated[str, StringConstraints(pattern=r"^[^/\x00]+$", max_length=1023)]
Path = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", max_length=1 << 20)]
Target = Annotated[str, StringConstraints(pattern=r"^[^\x00]+$", max_length=1 << 14)]
Mode = Annotated[int, Field(ge=0, le=0o7777)]
Size = Annotated[int, Field(ge=0, lt=1 << 63)]
Nanoseconds = Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

FileRow: TypeAlias = tuple[Name, Mode, Size, Nanoseconds, Digest]
"""name, mode, size in bytes, mtime in ns since 1970, digest of the content"""

SymlinkRow: TypeAlias = tuple[Name, Target, Nanoseconds]
"""name, target, mtime in ns"""

DirectoryRow: TypeAlias = tuple[Path, Mode, Nanoseconds, list[FileRow], list[SymlinkRow]]
"""path relative to the root ("" is the root itself), mode, mtime in ns, its files, its symlinks"""

Form = Annotated[int, Field(ge=0, lt=6)]

RelocationRow: TypeAlias = (
    tuple[Path, Kind, list[Size], list[Size]] | tuple[Path, Kind, list[Size], list[Size], list[Form]]
)
"""path of a file, kind, offsets of the roots in it, ends, and in version 2 forms (see
:class:`holo.catalog.Relocation`)"""


class CatalogDocument(BaseModel):
    """The JSON document as it is stored. Unknown keys are refused, numbers are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, title="holo catalog")

    version: int = Field(ge=1, le=VERSION, description="Version of this format.")
    prefix: Path = Field(description="Absolute path at which the environment stood when it was recorded.")
    project: Path | None = Field(
        default=None,
        description="Version 2: the root of the project that the environment belongs to; empty if nothing names it.",
    )
    directories: list[DirectoryRow] = Field(
        min_length=1,
        description="[path, mode, mtime_ns, files, symlinks]; parents before children, the root ('') first. "
        "A file is [name, mode, size, mtime_ns, digest], a symlink is [name, target, mtime_ns].",
    )
    relocations: list[RelocationRow] = Field(
        default=[],
        description="[path, kind, offsets, ends], in version 2 [path, kind, offsets, ends, forms]: where the roots "
        "occur in a file's content. ends: for binary and data, where the C string around each offset ends; for a text "
        "with a shebang into a root, where that line ends. forms: for each offset, which root is there and how it is "
        "spelled; empty if all are the prefix as it is.",
    )
    hardlinks: list[list[Path]] = Field(default=[], description="Groups of files that are hardlinks of each other.")
    xattrs: dict[str, dict[str, str]] = Field(
        default={}, description="Extended attributes by path: name to base64 value."
    )

    @model_validator(mode="after")
    def _fits_version(self) -> Self:
        columns = 5 if self.version > 1 else 4
        is_right = (self.project is not None) is (self.version > 1) and all(
            len(row) == columns and (columns > 4 or row[1] != "opaque") for row in self.relocations
        )
        if not is_right:
            raise ValueError(f"it has not the keys or columns of version {self.version}")
        return self


def parse(data: bytes, origin: str) -> dict[str, Any]:
    """Parse and check the form. Raises :class:`CatalogInvalid` naming ``origin`` (a path) and the problem."""
    try:
        document = CatalogDocument.model_validate_json(data)
        json.loads(data, object_pairs_hook=_refuse_duplicates)  # which the model's parser overlooks
    except ValidationError as error:
        raise CatalogInvalid(f"catalog {origin} is not valid: {_first_problem(data, error)[:300]}") from None
    except ValueError as error:
        raise CatalogInvalid(f"catalog {origin} is not valid: {error}") from None
    return document.model_dump(exclude_none=True)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice in one object")


def json_schema() -> str:
    """The JSON Schema of the catalog format, as kept in catalogs/catalog.schema.json."""
    return json.dumps(CatalogDocument.model_json_schema(), indent=2) + "\n"


def _first_problem(data: bytes, error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    if problem["type"] != "json_invalid":
        version = _version(data)
        if version not in range(1, VERSION + 1):
            return f"its version is {version!r}, and this holo reads versions 1 to {VERSION}"
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def refuse_newer(data: bytes, error: CatalogInvalid) -> None:
    """Raise :class:`NewerFormat` if a document is not valid because it is of a version that comes after those here."""
    version = _version(data)
    if type(version) is int and version > VERSION:
        raise NewerFormat(error.message) from None


def _version(data: bytes) -> Any:
    try:
        document = json.loads(data)
    except ValueError:
        return None
    return document.get("version") if isinstance(document, dict) else None
