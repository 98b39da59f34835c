"""Object addition: the pairs of `object_removal`, used the other way round; results are shared with it."""

from __future__ import annotations

from curation.tasks.object_removal import FORMS, GroundedRemoval, ObjectRemoval

ADDITION = tuple(form for form in FORMS if form[1] == "addition")


class ObjectAddition(ObjectRemoval):
    """The task, offline."""

    name, forms = "object_addition", ADDITION


class GroundedAddition(GroundedRemoval):
    """The task with the paper's models."""

    name, forms = "object_addition", ADDITION
