"""The extra `langgraph`: a checkpointer and a store of LangGraph that keep everything in keyed stores."""

try:
    from .checkpointer import Checkpointer
    from .memory import LangGraphStore
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"{error}: pip install 'posthouse[langgraph]'", name=error.name) from error

__all__ = ["Checkpointer", "LangGraphStore"]
