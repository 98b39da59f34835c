"""Scenes of simple moving objects, drawn from a seed: what is in them, and the MuJoCo model of it.

Equal seeds and settings give equal scenes, whatever the machine.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np

COLOURS = {
    "red": (0.80, 0.12, 0.10),
    "green": (0.15, 0.60, 0.20),
    "blue": (0.13, 0.27, 0.78),
    "yellow": (0.92, 0.80, 0.12),
    "purple": (0.50, 0.18, 0.62),
    "orange": (0.95, 0.50, 0.10),
    "white": (0.92, 0.92, 0.92),
    "black": (0.07, 0.07, 0.08),
}
SHAPES = {"ball": "sphere", "cube": "box", "cylinder": "cylinder", "capsule": "capsule", "egg": "ellipsoid"}
SIZES = {"small": 0.16, "large": 0.30}  # metres, half of the largest side
MATERIALS = {"matte": (0.0, 0.1, 0.0), "shiny": (0.5, 0.9, 0.0), "mirrored": (0.8, 1.0, 0.25)}
FLOORS = {
    "chequered": ("checker", (0.75, 0.75, 0.72), (0.45, 0.47, 0.5)),
    "grey": ("flat", (0.55, 0.55, 0.55), (0.55, 0.55, 0.55)),
    "wooden": ("gradient", (0.62, 0.45, 0.28), (0.45, 0.30, 0.18)),
    "green": ("checker", (0.36, 0.52, 0.34), (0.30, 0.46, 0.30)),
    "sandy": ("flat", (0.80, 0.70, 0.52), (0.80, 0.70, 0.52)),
}
SKIES = {
    "pale": (0.82, 0.82, 0.86),
    "blue": (0.45, 0.58, 0.72),
    "brick-coloured": (0.62, 0.38, 0.32),
    "dark": (0.22, 0.23, 0.27),
}
MOTIONS = ("rests", "rolls", "falls", "bounces")
_add = ElementTree.SubElement


@dataclass(frozen=True)
class SceneSettings:
    """Size and length of what is rendered, and how many objects a scene has (least, most).

    `distance` of the camera is in metres (least, most). `without` names looks ("green cylinder") that no
    object has; `shadow` is the side of the shadow maps in pixels, `samples` how often a pixel is sampled to
    smooth edges (0 is once): both are most of a small picture's cost.
    """

    height: int = 240
    width: int = 320
    frames: int = 33
    fps: float = 10.0
    objects: tuple[int, int] = (3, 6)
    distance: tuple[float, float] = (3.4, 4.4)
    without: tuple[str, ...] = ()
    shadow: int = 2048
    samples: int = 4


@dataclass(frozen=True)
class SceneObject:
    """One object. Lengths in metres, velocities in metres per second, `spin` in radians per second."""

    name: str
    shape: str
    size: str
    colour: str
    material: str
    motion: str
    position: tuple[float, float, float]
    velocity: tuple[float, float, float]
    spin: tuple[float, float, float]

    @property
    def half(self) -> float:
        """Half of its largest side."""
        return SIZES[self.size]


@dataclass(frozen=True)
class Scene:
    """Everything that a render depends on, the camera's movement apart."""

    seed: int
    settings: SceneSettings
    things: tuple[SceneObject, ...]
    floor: str
    sky: str
    lights: tuple[tuple[float, float, float], ...]  # where they hang, they look at the middle
    brightness: float  # of the sky
    azimuth: float  # of the camera, degrees
    elevation: float
    distance: float


def scene_of(seed: int, settings: SceneSettings) -> Scene:
    """The scene of a seed. No two of its objects have the same colour, shape and size."""
    random = np.random.default_rng([seed, 20])
    count = int(random.integers(*settings.objects, endpoint=True))
    things: list[SceneObject] = []
    looks: set[tuple[str, str, str]] = set()
    while len(things) < count:
        look = tuple(_pick(random, names) for names in (COLOURS, SHAPES, SIZES))
        colour, shape, size = look
        if look in looks or f"{colour} {shape}" in settings.without:
            continue
        place = _place(random, things, SIZES[size])
        if place is None:
            break
        looks.add((colour, shape, size))
        things.append(_thing(random, f"thing{len(things)}", shape, size, colour, place))
    lights = [
        (float(random.uniform(-2, 2)), float(random.uniform(-2.5, 0)), float(random.uniform(2.5, 4)))
        for _ in range(int(random.integers(1, 2, endpoint=True)))
    ]
    return Scene(
        seed,
        settings,
        tuple(things),
        _pick(random, FLOORS),
        _pick(random, SKIES),
        tuple(lights),
        round(float(random.uniform(0.6, 1.0)), 3),
        round(float(random.uniform(70, 110)), 2),
        round(float(random.uniform(-32, -18)), 2),
        round(float(random.uniform(*settings.distance)), 3),
    )


def _pick(random: np.random.Generator, names: object) -> str:
    return str(random.choice(sorted(names)))  # type: ignore[call-overload]


def _place(random: np.random.Generator, things: list[SceneObject], half: float) -> tuple[float, float] | None:
    """A spot on the floor that is free, or None after many tries."""
    for _ in range(100):
        x, y = float(random.uniform(-1.25, 1.25)), float(random.uniform(-0.9, 0.9))
        if all(np.hypot(x - t.position[0], y - t.position[1]) > 1.5 * (half + t.half) for t in things):
            return round(x, 4), round(y, 4)
    return None


def _thing(
    random: np.random.Generator, name: str, shape: str, size: str, colour: str, place: tuple[float, float]
) -> SceneObject:
    half = SIZES[size]
    motion = _pick(random, MOTIONS)
    velocity, spin, height = np.zeros(3), np.zeros(3), half * 1.002
    if motion == "rolls":
        angle = random.uniform(0, 2 * np.pi)
        speed = random.uniform(0.3, 0.9)
        velocity = np.array([np.cos(angle), np.sin(angle), 0]) * speed
        spin = np.array([-velocity[1], velocity[0], 0]) / half
    elif motion in ("falls", "bounces"):
        height = half + float(random.uniform(0.5, 1.2))
        spin = random.uniform(-2, 2, 3)
    rounded = [tuple(float(v) for v in np.round(values, 4)) for values in (velocity, spin)]
    position = (*place, round(height, 4))
    return SceneObject(name, shape, size, colour, _pick(random, MATERIALS), motion, position, *rounded)  # type: ignore[arg-type]


def mjcf(scene: Scene) -> str:
    """The MuJoCo model of a scene, as XML: a floor under a sky, lights, a camera, free bodies."""
    root = ElementTree.Element("mujoco")
    _add(root, "option", timestep="0.002")
    # what shadow maps cover: the objects, not all of the floor
    _add(root, "statistic", extent="2.2", center="0 0 0.4")
    _add_visual(root, scene.settings)
    assets = _add(root, "asset")
    _add_surroundings(assets, scene)
    world = _add(root, "worldbody")
    _add_lights(world, scene)
    _add(world, "camera", name="view", pos="0 -3 2", fovy="45")
    _add(world, "geom", name="floor", type="plane", size="30 30 0.1", material="floor")
    for thing in scene.things:
        _add_object(assets, world, thing)
    return ElementTree.tostring(root, encoding="unicode")


def _add_visual(root: ElementTree.Element, settings: SceneSettings) -> None:
    """What the renderer is told: size of the pictures, shadows, smoothing, light from the camera."""
    visual = _add(root, "visual")
    _add(visual, "map", shadowclip="2.4", zfar="40")
    _add(visual, "global", offwidth=str(settings.width), offheight=str(settings.height))
    _add(visual, "quality", shadowsize=str(settings.shadow), offsamples=str(settings.samples))
    _add(visual, "headlight", ambient="0.25 0.25 0.25", diffuse="0.2 0.2 0.2", specular="0 0 0")


def _add_surroundings(assets: ElementTree.Element, scene: Scene) -> None:
    """The looks of sky and floor."""
    sky = _numbers(c * scene.brightness for c in SKIES[scene.sky])
    _add(assets, "texture", type="skybox", builtin="gradient", rgb1=sky, rgb2=sky, width="64", height="64")
    kind, first, second = FLOORS[scene.floor]
    _add(
        assets,
        "texture",
        name="floor",
        type="2d",
        builtin=kind,
        rgb1=_numbers(first),
        rgb2=_numbers(second),
        width="256",
        height="256",
        mark="random",
        markrgb=_numbers(c * 0.85 for c in first),
        random="0.02",
    )
    _add(
        assets, "material", name="floor", texture="floor", texrepeat="30 30", specular="0.1", shininess="0.1"
    )


def _add_lights(world: ElementTree.Element, scene: Scene) -> None:
    """The lights, which share one brightness."""
    for place in scene.lights:
        towards = np.array([0, 0, 0.2]) - place
        _add(
            world,
            "light",
            pos=_numbers(place),
            dir=_numbers(towards / np.linalg.norm(towards)),
            directional="true",  # spots speckle the floor where their maps end
            diffuse=_numbers((0.85 / len(scene.lights),) * 3),
            specular="0.3 0.3 0.3",
            castshadow="true",
        )


def _add_object(assets: ElementTree.Element, world: ElementTree.Element, thing: SceneObject) -> None:
    """One object: its material, and a body that moves freely."""
    shininess, specular, reflectance = MATERIALS[thing.material]
    _add(
        assets,
        "material",
        name=thing.name,
        rgba=_numbers((*COLOURS[thing.colour], 1)),
        shininess=str(shininess),
        specular=str(specular),
        reflectance=str(reflectance),
    )
    body = _add(world, "body", name=thing.name, pos=_numbers(thing.position))
    _add(body, "freejoint")
    _add(
        body,
        "geom",
        name=thing.name,
        type=SHAPES[thing.shape],
        size=_numbers(_extent(thing)),
        material=thing.name,
        mass="0.4",
        friction="0.7 0.01 0.002",
        solref="-1200 -4" if thing.motion == "bounces" else "0.02 1",
    )


def _extent(thing: SceneObject) -> tuple[float, ...]:
    half = thing.half
    return {
        "ball": (half,),
        "cube": (half * 0.8,) * 3,
        "cylinder": (half * 0.7, half),
        "capsule": (half * 0.5, half * 0.5),
        "egg": (half * 0.75, half * 0.75, half),
    }[thing.shape]


def _numbers(values: object) -> str:
    return " ".join(f"{float(v):.5g}" for v in values)  # type: ignore[attr-defined]


def as_dict(scene: Scene) -> dict[str, object]:
    """A scene as plain values, to be hashed and stored."""
    return dataclasses.asdict(scene)
