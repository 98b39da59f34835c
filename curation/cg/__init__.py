"""Computer graphics with exact ground truth: scenes from a seed, rendered by MuJoCo.

What a scene is (`scene`), its renders (`render`), how cameras move (`camera`), what to call things (`words`).
"""

import os

# read when MuJoCo is first imported, wherever that is; without it, it looks for a window system
os.environ.setdefault("MUJOCO_GL", "egl")
