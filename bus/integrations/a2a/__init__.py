"""The extra `a2a`: a bot as an agent of the Agent2Agent protocol, and such an agent as a bot."""

try:
    from .agent import add_agent
    from .app import a2a_app
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(f"{error}: pip install 'posthouse[a2a]'", name=error.name) from error

__all__ = ["a2a_app", "add_agent"]
