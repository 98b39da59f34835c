"""Object addition: the pairs of `object_removal`, used the other way round; results are shared with it."""

from __future__ import annotations

from curation.tasks.object_removal import FORMS, ObjectRemoval


class ObjectAddition(ObjectRemoval):
    """The task."""

    name = "object_addition"
    forms = tuple(form for form in FORMS if form[1] == "addition")
