"""Calls about definitions of workflows, documented in `docs/protocol.md`.

Pure: bytes in, values out.
"""

from __future__ import annotations

from ..model.records import Owner, WorkflowDefinition
from .call import Call, ListCall

__all__ = [
    "DEFINITION_CALLS",
    "DeleteDefinition",
    "GetDefinition",
    "GetDefinitionByName",
    "ListDefinitions",
    "OfferDefinition",
    "SaveDefinition",
]


class SaveDefinition(Call, frozen=True, kw_only=True):
    """Inserts or replaces a definition."""

    method = "save_definition"
    answer = None
    writes = True
    definition: WorkflowDefinition


class OfferDefinition(Call, frozen=True, kw_only=True):
    """Saves a definition unless a newer one is stored."""

    method = "offer_definition"
    answer = WorkflowDefinition
    writes = True
    definition: WorkflowDefinition


class GetDefinition(Call, frozen=True, kw_only=True):
    """Asks for a definition."""

    method = "get_definition"
    answer = WorkflowDefinition | None
    definition_id: str


class GetDefinitionByName(Call, frozen=True, kw_only=True):
    """Asks for a definition by name and owner."""

    method = "get_definition_by_name"
    answer = WorkflowDefinition | None
    name: str
    owner: Owner


class ListDefinitions(ListCall, frozen=True, kw_only=True):
    """Asks for the definitions of one owner, or of all."""

    method = "list_definitions"
    answer = list[WorkflowDefinition]
    owner: Owner | None = None


class DeleteDefinition(Call, frozen=True, kw_only=True):
    """Deletes a definition, with its runs if `cascade` is set."""

    method = "delete_definition"
    answer = bool
    writes = True
    definition_id: str
    cascade: bool = False


DEFINITION_CALLS: tuple[type[Call], ...] = (
    SaveDefinition, OfferDefinition, GetDefinition, GetDefinitionByName, ListDefinitions, DeleteDefinition,
)  # fmt: skip
