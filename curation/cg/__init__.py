"""Computer graphics with exact ground truth: scenes from a seed, rendered by MuJoCo.

What a scene is (`scene`), its renders (`render`), how cameras move (`camera`), what to call things (`words`).
"""
