"""The animatic: what a plan holds, and that the film shows and sounds it."""

from __future__ import annotations

import base64
import io
import itertools

import av
import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageDraw
from runcomfy_kling.nodes.rehearsal.animatic import FPS, frames, render
from runcomfy_kling.nodes.rehearsal.captions import AMBER, caption
from runcomfy_kling.nodes.rehearsal.fonts import BUILT_IN, CHINESE, JAPANESE, KOREAN, Face, Type
from runcomfy_kling.nodes.rehearsal.plan import Plan, Remote, Shot, plan

TEXT = "kling/kling-3.0/pro/text-to-video"
IMAGE = "kling/kling-3.0/pro/image-to-video"
NO_SYSTEM_FONT = (BUILT_IN,)


def data_uri(picture: Image.Image, kind: str = "PNG") -> str:
    content = io.BytesIO()
    picture.save(content, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"


def still(width: int, height: int, colour: str = "gray") -> str:
    return data_uri(Image.new("RGB", (width, height), colour))


def text_plan(prompt: str, **changes) -> Plan:
    return plan(TEXT, {"prompt": prompt, "duration": 3, **changes})


def pixels(picture: Image.Image, left: float, top: float, right: float, foot: float) -> np.ndarray:
    """A part of a picture, its edges given from 0 to 1, as float [H, W, C]."""
    width, height = picture.size
    box = (round(left * width), round(top * height), round(right * width), round(foot * height))
    return np.asarray(picture.crop(box), float)


@pytest.fixture(scope="module")
def storyboard() -> Plan:
    seconds = (3, 4, 3)
    return plan(
        IMAGE,
        {
            "prompt": "Three shots.",
            "multi_prompt": [
                {"prompt": f"Shot number {number}: the cup.", "duration": length}
                for number, length in enumerate(seconds, 1)
            ],
            "duration": sum(seconds),
            "start_image_url": data_uri(Image.fromarray(skimage.data.coffee()), "JPEG"),
            "end_image_url": data_uri(Image.fromarray(skimage.data.rocket()), "JPEG"),
            "elements": [{"frontal_image_url": still(200, 200, "magenta")}],
        },
    )


@pytest.fixture(scope="module")
def film(storyboard, tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    render(storyboard, path)
    return path


@pytest.fixture(scope="module")
def pictures(film) -> list[Image.Image]:
    """Every sixth frame, read back from the file."""
    with av.open(str(film)) as container:
        return [frame.to_image() for frame in itertools.islice(container.decode(video=0), 0, None, 6)]


def test_the_file_is_what_players_expect(film, storyboard):
    with av.open(str(film)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.pix_fmt) == ("h264", "yuv420p")
        assert (video.width, video.height) == storyboard.size
        assert (video.average_rate, video.frames) == (FPS, 10 * FPS)
        assert video.duration * video.time_base == 10
        assert audio.codec_context.name == "aac"
        assert float(audio.duration * audio.time_base) == pytest.approx(10, abs=0.03)
        assert container.duration / av.time_base == pytest.approx(10, abs=0.03)
    content = film.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_without_audio_there_is_no_sound_track(tmp_path):
    silent = text_plan("A silent lake.", sound=False)
    render(silent, tmp_path / "silent.mp4")
    with av.open(str(tmp_path / "silent.mp4")) as container:
        assert (len(container.streams.video), len(container.streams.audio)) == (1, 0)


def test_a_tick_sounds_at_each_cut_over_a_quiet_bed(film):
    with av.open(str(film)) as container:
        parts = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    sound = np.concatenate(parts)
    loudness = np.abs(sound[: len(sound) // 2400 * 2400]).reshape(-1, 2400).max(axis=1)  # of 50 ms each
    loud = np.flatnonzero(loudness > 0.15) * 0.05
    assert [round(float(at)) for at in loud if min(abs(at - 3), abs(at - 7)) <= 0.11] == [round(a) for a in loud]
    assert {round(float(at)) for at in loud} == {3, 7}
    assert 0.005 < np.median(loudness) < 0.08


def test_every_frame_wears_the_ribbon(pictures):
    for picture in pictures:
        width = picture.width
        unit = min(picture.size) / 720
        # Along the band, beside its letters.
        spots = [(width - (112 + along) * unit - 12, (112 - along) * unit + 12) for along in (90, -90)]
        for x, y in spots:
            seen = np.asarray(picture.getpixel((round(x), round(y))), float)
            assert np.abs(seen - AMBER).max() < 40, (x, y, seen)
    assert len(pictures) == 40


def test_the_picture_moves_within_a_shot_and_jumps_at_a_cut(storyboard):
    def difference(one, other):
        return np.abs(pixels(one, 0.3, 0.3, 0.7, 0.5) - pixels(other, 0.3, 0.3, 0.7, 0.5)).mean()

    before, last, first, after = itertools.islice(frames(storyboard), 3 * FPS - 2, 3 * FPS + 2)
    assert 0 < difference(before, last) < difference(last, first) / 2
    assert 0 < difference(first, after) < difference(last, first) / 2


def test_the_film_goes_from_the_start_image_to_the_end_image(pictures, storyboard):
    def alike(picture, still):
        fitted = still.resize(picture.size)
        pair = [pixels(p.convert("L"), 0.3, 0.1, 0.7, 0.5).ravel() for p in (picture, fitted)]
        return np.corrcoef(pair)[0, 1]

    assert alike(pictures[0], storyboard.start) > 0.9 > 0.5 > alike(pictures[0], storyboard.end)
    rocket = Image.fromarray(skimage.data.rocket())
    cropped = rocket.crop(
        (rocket.width / 2 - rocket.height * 0.75, 0, rocket.width / 2 + rocket.height * 0.75, rocket.height)
    )
    assert alike(pictures[-1], cropped) > 0.6 > 0.5 > alike(pictures[-1], storyboard.start)


def test_every_shot_is_captioned_by_its_number_and_prompt(storyboard):
    captions = [np.asarray(caption(storyboard, index)) for index in range(3)]
    for one, other in itertools.combinations(captions, 2):
        changed = np.abs(one.astype(int) - other).max(axis=-1) > 60
        rows = np.flatnonzero(changed.any(axis=1))
        assert rows.min() > one.shape[0] * 0.6
    with_text = np.asarray(caption(storyboard, 0).convert("RGB"))
    assert (with_text[int(with_text.shape[0] * 0.7) :] > 240).all(axis=-1).sum() > 1000


def test_elements_are_inset(pictures):
    for picture in pictures:
        seen = np.asarray(picture.getpixel((95, 95)), float)
        assert np.abs(seen - (255, 0, 255)).max() < 60


def test_the_same_plan_gives_the_same_pictures():
    def opening(prompt):
        return [frame.tobytes() for frame in itertools.islice(frames(text_plan(prompt)), 2)]

    assert opening("A lake.") == opening("A lake.")
    assert opening("A lake.")[0] != opening("A hill.")[0]


@pytest.mark.parametrize(("ratio", "size"), [("16:9", (1280, 720)), ("9:16", (720, 1280)), ("1:1", (720, 720))])
def test_the_ratio_of_a_text_to_video(ratio, size):
    assert text_plan("x", aspect_ratio=ratio).size == size


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ((400, 300), (960, 720)),
        ((301, 401), (720, 960)),
        ((1000, 401), (1728, 692)),
        ((64, 640), (432, 1728)),
        ((1, 1), (720, 720)),
    ],
)
def test_the_ratio_of_an_image_to_video_is_that_of_its_still(source, size):
    body = {"prompt": "x", "duration": 3, "start_image_url": still(*source)}
    drawn = plan(IMAGE, body)
    assert drawn.size == size
    assert next(frames(drawn)).size == size


def test_a_body_becomes_shots_and_small_print():
    body = {"prompt": "All.", "multi_prompt": [{"prompt": "One.", "duration": 3}, {"prompt": "Two."}]}
    drawn = plan(TEXT, {**body, "duration": 8, "cfg_scale": 0.3, "negative_prompt": "blur,\nnoise"}, take=2)
    assert drawn.shots == (Shot("One.", 3), Shot("Two.", 5))
    assert drawn.seconds == 8
    assert drawn.note == "Kling 3.0 pro  ·  text to video  ·  cfg 0.3  ·  take 2  ·  not: blur, noise"
    assert plan(TEXT, {"prompt": "All."}).shots == (Shot("All.", 5),)
    assert plan(IMAGE, {"prompt": "All.", "start_image_url": still(9, 9)}).shots == (Shot("All.", 10),)


def test_transparency_lies_on_white():
    uri = data_uri(Image.new("RGBA", (320, 320), (255, 0, 0, 0)))
    drawn = plan(IMAGE, {"prompt": "x", "start_image_url": uri})
    assert drawn.start.getpixel((5, 5)) == (255, 255, 255)


def test_a_remote_still_is_a_card_that_names_it():
    first, second = (
        plan(IMAGE, {"prompt": "x", "start_image_url": f"https://{host}.example.com/{host}.png"})
        for host in ("harbour", "station")
    )
    assert first.start == Remote("https://harbour.example.com/harbour.png")
    assert next(frames(first)).tobytes() != next(frames(second)).tobytes()


def test_a_video_element_shows_its_first_frame(film):
    uri = "data:video/mp4;base64," + base64.b64encode(film.read_bytes()).decode()
    drawn = plan(IMAGE, {"prompt": "x", "start_image_url": still(9, 9), "elements": [{"video_url": uri}]})
    assert drawn.elements[0][0].size == (1080, 720)


@pytest.mark.parametrize("field", ["start_image_url", "end_image_url"])
def test_a_still_that_is_none_is_named(field):
    body = {"prompt": "x", "start_image_url": still(9, 9), field: "data:image/png;base64,AAAA"}
    with pytest.raises(ValueError, match=field):
        plan(IMAGE, body)


@pytest.mark.parametrize(
    ("text", "regional"),
    [
        ("기차가 노을 속으로 달린다.", KOREAN),
        ("夕焼けの中を列車が走る。", JAPANESE),
        ("火车驶入晚霞。", CHINESE),
        ("火車駛入晚霞。", CHINESE),
    ],
)
def test_east_asian_prompts_are_drawn(text, regional):
    if not Type(24, text, regional).legible(text):
        pytest.skip("no font for this script is installed")
    assert Type(24, text).legible(text) == text
    empty, drawn = (np.asarray(caption(text_plan(prompt), 0).convert("RGB")) for prompt in ("-", text))
    assert (drawn > 240).all(axis=-1).sum() > (empty > 240).all(axis=-1).sum() + 500


def test_the_script_of_a_prompt_decides_how_han_looks():
    if not Type(24, "", JAPANESE[:1]).legible("直"):
        pytest.skip("no font with regional forms is installed")

    def drawn(text):
        kind, picture = Type(48, text), Image.new("L", (80, 80))
        kind.draw(ImageDraw.Draw(picture), 10, 60, "直", (255,))
        return picture.tobytes()

    assert drawn("直す") != drawn("直播")


def test_without_a_font_characters_are_left_out_and_never_boxes():
    for text, left in (
        ("붉은 train 노을", "train"),
        ("列車が走る", ""),
        ("नमस्ते, Delhi", ", Delhi"),
        ("a🎬b \U0010fffe c", "ab c"),
        ("x\u20dd e", "x e"),
    ):
        assert Type(30, text, NO_SYSTEM_FONT).legible(text) == left
    blank, hangul = (caption(text_plan(text), 0, NO_SYSTEM_FONT) for text in ("\u200b", "기차가 달린다"))
    assert hangul.tobytes() == blank.tobytes()


def test_a_mark_that_a_font_lacks_is_left_out_although_shaping_would_draw_a_circle():
    faces = (BUILT_IN, *CHINESE[:1])
    assert Type(30, "", faces).legible("नमस्ते") == ""


def test_a_font_that_is_not_there_is_passed_over():
    assert Type(30, "", (Face("no such font.ttf"), BUILT_IN)).legible("Lake") == "Lake"


@pytest.mark.parametrize("ratio", ["16:9", "9:16", "1:1"])
def test_a_very_long_prompt_leaves_the_picture_free(ratio):
    layer = caption(text_plan("A slow push over a fjord before sunrise. " * 60, aspect_ratio=ratio), 0)
    assert pixels(layer, 0, 0, 0.3, 0.4)[..., 3].max() == 0


def test_a_word_without_spaces_is_wrapped():
    layer = caption(text_plan("A" * 400), 0)
    edge = pixels(layer.convert("RGB"), 0.98, 0.5, 1, 1)
    assert edge.max() == 0
