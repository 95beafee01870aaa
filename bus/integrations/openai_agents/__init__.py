"""The extra `openai-agents`: conversations of the OpenAI Agents SDK, and approvals of its tools."""

try:
    from .running import add_agent, run_agent
    from .session import KeyedSession
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"{error}: pip install 'posthouse[openai-agents]'", name=error.name) from error

__all__ = ["KeyedSession", "add_agent", "run_agent"]
