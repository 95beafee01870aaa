"""The extra `langgraph`: a LangGraph checkpointer and store that keep everything in the worker's keyed stores.

from bus.integrations.langgraph import Checkpointer, LangGraphStore
"""

from .checkpointer import Checkpointer
from .memory import LangGraphStore

__all__ = ["Checkpointer", "LangGraphStore"]
