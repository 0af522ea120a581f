"""The CycloneDX document: https://cyclonedx.org/docs/1.6/json/

It has no time and no random number in it, and everything is in order: the same catalog gives the same bytes, and so
does a space in which the same packages are.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from holo.hololib import CatalogRef
from holo.sbom.licences import Licence
from holo.sbom.packages import Package

_NAMESPACE = uuid.UUID("5f2c1a52-9a0e-4b51-8f6c-0d9c2f1d7c39")
"""Of the serial numbers that holo gives: made up once."""


def document(ref: CatalogRef, packages: Mapping[Package, Sequence[str]], space: str | None = None) -> str:
    """The document about a catalog in which packages were found, each described by files at some paths.

    Or about a ``space`` that was restored to that catalog and differs from it now: that has no digest.
    """
    catalog: dict[str, Any] = {
        "type": "application",
        "bom-ref": f"catalog:{ref.digest}",
        "name": ref.name,
        "hashes": [{"alg": "BLAKE3", "content": ref.digest}],
    }
    components = _components(packages)
    # The name is in the document, so under another name it is another one.
    about, identity = catalog, f"{ref.digest} {ref.name}"
    if space is not None:
        about = {
            "type": "application",
            "bom-ref": f"space:{space}",
            "name": space,
            "pedigree": {"ancestors": [catalog]},
        }
        identity = f"{identity} {space} {json.dumps(components)}"
    value = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(_NAMESPACE, identity).urn,
        "version": 1,
        "metadata": {
            # Without its version: an update of holo would change a document that its serial number names.
            "tools": {"components": [{"type": "application", "name": "holo"}]},
            "component": about,
        },
        "components": components,
    }
    return json.dumps(value, indent=2) + "\n"


def _components(packages: Mapping[Package, Sequence[str]]) -> list[dict[str, Any]]:
    found = []
    named = set[str]()
    for package, paths in sorted((package, sorted(paths)) for package, paths in packages.items()):
        # Two files may say different things of the same package. The path tells such components apart.
        name = package.purl if package.purl not in named else f"{package.purl}#{paths[0]}"
        named.add(name)
        found.append(_component(name, package, paths))
    return found


def _component(name: str, package: Package, paths: Sequence[str]) -> dict[str, Any]:
    component: dict[str, Any] = {"type": "library", "bom-ref": name}
    if package.group:
        component["group"] = package.group
    component |= {"name": package.name, "version": package.version}
    if package.hashes:
        component["hashes"] = [{"alg": algorithm, "content": content} for algorithm, content in package.hashes]
    if licences := _licences(package.licence):
        component["licenses"] = licences
    component["purl"] = package.purl
    if package.references:
        component["externalReferences"] = [{"type": kind, "url": url} for kind, url in package.references]
    component["evidence"] = {"occurrences": [{"location": path} for path in paths]}
    return component


def _licences(licence: Licence) -> list[dict[str, Any]]:
    if licence.expression:
        return [{"expression": licence.expression, "acknowledgement": "declared"}]
    return [{"license": {"name": name, "acknowledgement": "declared"}} for name in licence.names]
