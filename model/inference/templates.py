"""The task forms of the paper as templates: how each task places its text, images and videos.

Figure 4's twenty editing tasks, and what section 4 and Table 10 name besides. A form is a wording, not a mode
of the model: any other interleaving works too.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

from shards.errors import SettingError
from shards.sample import tags_of


@dataclass(frozen=True)
class Form:
    """One task.

    Attributes:
        name: of the task, as in the figure.
        text: template with tags and `{fields}`; the last tag is what is generated.
        example: a value for every field.
        media: what each source tag holds, in words.
        source: where the paper has it.
    """

    name: str
    text: str
    example: dict[str, str]
    media: dict[str, str]
    source: str = "Figure 4"

    def fill(self, **fields: str) -> str:
        """The text with its fields filled in.

        Raises:
            ValueError: a field is missing, unknown or empty, or a value holds a tag of its own.
        """
        wanted = {name for _, name, _, _ in string.Formatter().parse(self.text) if name}
        for name in sorted(wanted ^ set(fields)):
            problem = "is missing" if name in wanted else "is unknown"
            raise SettingError(f"form {self.name}: field {name!r} {problem}; it has {sorted(wanted)}")
        for name, value in fields.items():
            if not value.strip() or tags_of(value):
                raise SettingError(f"form {self.name}: field {name!r} needs text without tags, got {value!r}")
        return self.text.format(**fields)

    @property
    def filled(self) -> str:
        """The text of the example."""
        return self.fill(**self.example)

    @property
    def tags(self) -> list[str]:
        """Elements in order."""
        return tags_of(self.text)

    @property
    def sources(self) -> list[str]:
        """Elements that are given."""
        return self.tags[:-1]

    @property
    def target(self) -> str:
        """The element that is generated."""
        return self.tags[-1]


def _edit(name: str, prompt: str, media: str = "the video to edit") -> Form:
    return Form(name, "<video1> {prompt} <video2>", {"prompt": prompt}, {"video1": media})


FIGURE_4 = (
    _edit("add object", "Add a rainbow in the background."),
    _edit("remove object", "Remove background people."),
    _edit("change object", "Replace stop sign with green go sign."),
    _edit("stylization", "Change to watercolor."),
    Form(
        "inpainting",
        "Inpaint this video <video1> with mask <video2>. {prompt} <video3>",
        {"prompt": "A woman is exercising in a bright room."},
        {"video1": "the video with a hole", "video2": "the mask, white where it is to be filled"},
    ),
    Form(
        "propagation",
        "<video1> edit the video following the first frame <image1>. <video2>",
        {},
        {"video1": "the video to edit", "image1": "its first frame, already edited"},
    ),
    Form(
        "reference insertion",
        "<video1> Insert {object} <image1> {place} <video2>",
        {"object": "a paper boat", "place": "in the water."},
        {"video1": "the video to edit", "image1": "a picture of the object"},
    ),
    _edit("reasoning", "Make the dirty animal clean."),
    _edit("change background", "Change background to Mars surface."),
    _edit("change color", "Change the table to golden."),
    _edit("change material", "Change the turtle to crystal."),
    _edit("change camera", "Change the camera to Pan Left."),
    _edit("add effect", "Add time-lapse effect to sky."),
    _edit("change weather", "Change the weather to snowstorm."),
    _edit("detection", "Detect the mask of the bird.", "the video to look at"),
    _edit("pose-to-video", "A young woman sits on the floor.", "the pose, drawn as skeletons on black"),
    _edit("depth-to-video", "Colorful roses sway in the breeze.", "the depth, near is bright"),
    _edit("sketch-to-video", "Three young women stand together.", "the edges, white on black"),
    _edit("combined task", "Add glass, beach background"),
    Form(
        "edit with mask",
        "<video1> {prompt} shown in the mask <video2>. <video3>",
        {"prompt": "remove the blue parrot"},
        {"video1": "the video to edit", "video2": "the mask, white where the edit belongs"},
    ),
)

OTHERS = (
    Form("image generation", "{prompt} <image1>", {"prompt": "A red fox in the snow."}, {}, "section 4"),
    Form(
        "image editing",
        "<image1> {prompt} <image2>",
        {"prompt": "Make it night."},
        {"image1": "the image to edit"},
        "section 4",
    ),
    Form("text-to-video", "{prompt} <video1>", {"prompt": "Waves break on a beach."}, {}, "section 4"),
    Form(
        "image-to-video",
        "<image1> {prompt} <video1>",
        {"prompt": "The boat drifts to the left."},
        {"image1": "the first frame"},
        "section 4",
    ),
    Form(
        "customization",
        "{subject} <image1> {prompt} <video1>",
        {"subject": "The dog", "prompt": "runs along the shore."},
        {"image1": "a picture of the subject"},
        "section 4",
    ),
    Form(
        "mask detection",
        "<video1> I want to {edit}. Detect the region that needs to be edited <video2>",
        {"edit": "remove the man in the dark coat"},
        {"video1": "the video to look at"},
        "section 4 (5)",
    ),
    Form("video-to-pose", "<video1> Detect the pose. <video2>", {}, {"video1": "a video"}, "Table 10"),
    Form("video-to-depth", "<video1> Detect the depth. <video2>", {}, {"video1": "a video"}, "Table 10"),
    Form("video-to-sketch", "<video1> Detect the sketch. <video2>", {}, {"video1": "a video"}, "Table 10"),
)

FORMS = (*FIGURE_4, *OTHERS)
