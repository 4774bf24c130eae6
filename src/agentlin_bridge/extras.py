"""Optional parts: a missing or too old one is named with the command that installs it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from agentlin_bridge.errors import MissingExtraError

DISTRIBUTION = "agentlin-bridge"


def require_extra(extra: str) -> None:
    """Check that what `agentlin-bridge[extra]` needs is installed, and new enough.

    Raises:
        MissingExtraError: naming each unmet requirement and the command that installs them.
    """
    unmet = [problem for requirement in _requirements(extra) if (problem := _problem(requirement))]
    if unmet:
        raise MissingExtraError(
            f"This needs the extra '{extra}': {'; '.join(unmet)}.",
            next_step=f"run: pip install --upgrade '{DISTRIBUTION}[{extra}]'",
        )


def _requirements(extra: str) -> list[Requirement]:
    declared = [Requirement(line) for line in requires(DISTRIBUTION) or []]
    return [
        r for r in declared if r.marker and r.marker.evaluate({"extra": extra}) and not r.marker.evaluate({"extra": ""})
    ]


def _problem(requirement: Requirement) -> str:
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return f"{requirement.name} is not installed"
    if requirement.specifier.contains(installed, prereleases=True):
        return ""
    return f"{requirement.name} {installed} is installed, but {requirement.specifier} is needed"
