"""Annotators: one small class per file, each behind an interface of `curation.core.interfaces`.

A YAML file under `configs/curation/` chooses them by class_path; nothing here imports another annotator.
"""
