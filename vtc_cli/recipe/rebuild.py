"""A stage again from its name and its resolved hyper-parameters, without a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vtc_cli.core.discover import stage_class
from vtc_cli.core.errors import VtcError
from vtc_cli.core.plan import Planned
from vtc_cli.recipe.parameters import FIDELITY, has_fidelity, objection, parameters_of


def rebuild(name: str, resolved: Mapping[str, Any], declared: Mapping[str, Any]) -> Planned[Any]:
    """The stage `name` with hyper-parameters as a file holds them.

    Args:
        name: full name.
        resolved: every hyper-parameter as used, lists in place of tuples.
        declared: the same as on the reference depth, for reports.

    Raises:
        VtcError: the stage is not known here, or it does not take these values.
    """
    full, cls = stage_class(name)
    known = parameters_of(cls)
    unknown = set(resolved) - set(known) - ({FIDELITY} if has_fidelity(cls) else set())
    if unknown:
        found = f"{full} has no hyper-parameter {', '.join(sorted(unknown))}"
        raise VtcError(found, allowed=", ".join(known) or "none")
    values = dict(resolved)
    try:
        values |= {key: known[key].convert(value) for key, value in values.items() if key in known}
        return Planned(full, cls(**values), declared, values)
    except VtcError:
        raise
    except Exception as error:  # a stage's own code raises whatever it likes
        raise VtcError(f"{full}: {objection(error)}") from error
