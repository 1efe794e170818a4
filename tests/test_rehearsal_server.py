"""The rehearsal server over real HTTP: every call, every code, and what the schemas refuse."""

from __future__ import annotations

import base64
import contextlib
import io
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import pytest
import requests
from PIL import Image
from runcomfy_kling.nodes.rehearsal.server import RehearsalServer

ROOT = Path(__file__).resolve().parent.parent
TOKEN = {"Authorization": "Bearer first"}
TEXT = "kling/kling-3.0/pro/text-to-video"
IMAGE = "kling/kling-3.0/standard/image-to-video"
MODELS = [f"kling/kling-3.0/{tier}/{kind}-to-video" for tier in ("standard", "pro", "4k") for kind in ("text", "image")]


def data_uri(kind: str = "png", size: tuple[int, int] = (320, 320), colour: str = "teal") -> str:
    content = io.BytesIO()
    Image.new("RGB", size, colour).save(content, kind)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def text_body(**changes):
    return {"prompt": "A train crosses a viaduct.", "duration": 3, **changes}


def image_body(**changes):
    return {"prompt": "It turns.", "start_image_url": data_uri(), "duration": 3, **changes}


def submit(server, model=TEXT, body=None, headers=TOKEN):
    return requests.post(f"{server.base_url}/v1/models/{model}", json=body or text_body(), headers=headers)


def get(url, headers=TOKEN):
    answer = requests.get(url, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer, status, code):
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["message"]
    return answer.json()


@pytest.fixture
def server():
    with RehearsalServer(base_price_usd=0.14) as running:
        running.outcome = "no_output"  # what is said about a job does not need its film
        yield running


@pytest.fixture(scope="module")
def finished():
    """A server with one rendered clip, and the answer of /result about it."""
    with RehearsalServer(base_price_usd=0.14) as running:
        accepted = submit(running).json()
        running.wait_for(lambda: running.jobs[0].finished_at)
        yield running, get(accepted["result_url"])


def test_a_generation_from_submission_to_file(finished):
    server, result = finished
    assert result["status"] == "succeeded"
    assert result["created_at"] < result["finished_at"]
    clip = requests.get(result["output"]["video"])
    assert clip.headers["Content-Type"] == "video/mp4"
    with av.open(io.BytesIO(clip.content)) as container:
        assert container.streams.video[0].frames == 3 * 24
    assert get(f"{server.base_url}/v1/requests/{result['request_id']}/status")["status"] == "completed"


def test_a_result_file_can_be_read_in_parts(finished):
    _, result = finished
    url = result["output"]["video"]
    whole = requests.get(url)
    size = len(whole.content)
    for wanted, expected, bounds in (
        ("bytes=0-9", whole.content[:10], f"0-9/{size}"),
        (f"bytes={size - 5}-", whole.content[-5:], f"{size - 5}-{size - 1}/{size}"),
        ("bytes=-7", whole.content[-7:], f"{size - 7}-{size - 1}/{size}"),
    ):
        part = requests.get(url, headers={"Range": wanted, "If-Range": whole.headers["ETag"]})
        assert (part.status_code, part.content) == (206, expected)
        assert part.headers["Content-Range"] == f"bytes {bounds}"
    changed = requests.get(url, headers={"Range": "bytes=0-9", "If-Range": '"another"'})
    assert (changed.status_code, changed.content) == (200, whole.content)
    assert requests.get(url, headers={"Range": f"bytes={size}-"}).status_code == 416
    head = requests.head(url)
    assert (head.headers["Content-Length"], head.content) == (str(size), b"")


def test_the_submission_names_its_three_urls(server):
    answer = submit(server).json()
    root = f"{server.base_url}/v1/requests/{answer['request_id']}"
    assert answer == {
        "request_id": answer["request_id"],
        "status_url": f"{root}/status",
        "result_url": f"{root}/result",
        "cancel_url": f"{root}/cancel",
    }


def test_places_in_the_queue_count_down(server):
    server.hold()
    urls = [submit(server).json() for _ in range(3)]
    assert [get(url["status_url"])["queue_position"] for url in urls] == [1, 2, 3]
    assert get(urls[0]["result_url"])["status"] == "in_queue"
    server.hold_work()
    server.release()
    server.wait_for(lambda: server.jobs[0].state == "in_progress")
    states = [get(url["status_url"]) for url in urls]
    assert [state["status"] for state in states] == ["in_progress", "in_queue", "in_queue"]
    assert [state.get("queue_position") for state in states] == [None, 1, 2]
    assert get(urls[0]["result_url"])["status"] == "in_progress"
    server.release_work()
    server.wait_for(lambda: all(job.finished_at for job in server.jobs))
    assert [get(url["status_url"])["status"] for url in urls] == ["completed"] * 3


def test_a_job_spends_its_seconds_in_the_queue_and_at_work():
    with RehearsalServer(queue_seconds=0.2, work_seconds=0.2) as server:
        server.outcome = "no_output"
        submit(server)
        seen = []
        server.wait_for(lambda: seen.append(server.jobs[0].state) or server.jobs[0].finished_at)
        assert list(dict.fromkeys(seen)) == ["in_queue", "in_progress", "completed"]


@pytest.mark.parametrize(
    ("outcome", "status", "ending", "output"),
    [("failed", "completed", "failed", {}), ("no_output", "completed", "succeeded", {}), ("cancelled",) * 3 + ({},)],
)
def test_a_job_can_end_without_a_video(server, outcome, status, ending, output):
    server.outcome = outcome
    urls = submit(server).json()
    server.wait_for(lambda: server.jobs[0].finished_at)
    assert get(urls["status_url"])["status"] == status
    result = get(urls["result_url"])
    assert (result["status"], result["output"]) == (ending, output)
    assert ("error" in result) == (outcome == "failed")


def test_a_result_can_hold_two_different_videos(server):
    server.outcome = "two_videos"
    urls = submit(server).json()
    server.wait_for(lambda: server.jobs[0].finished_at)
    output = get(urls["result_url"])["output"]
    clips = {requests.get(url).content for url in output["videos"]}
    assert len(clips) == 2


def test_the_cost_is_told_when_asked_for(finished):
    server, result = finished
    url = f"{server.base_url}/v1/requests/{result['request_id']}/result"
    assert "cost" not in get(url)
    assert get(f"{url}?include_cost=true")["cost"] == pytest.approx(3 * 0.14)


def test_only_queued_work_can_be_cancelled(server):
    server.hold()
    queued, next_one = (submit(server).json() for _ in range(2))
    answer = requests.post(queued["cancel_url"], headers=TOKEN)
    assert answer.status_code == 202
    assert answer.json() == {"request_id": queued["request_id"], "status": "cancelled", "outcome": "cancelled"}
    assert get(queued["status_url"])["status"] == "cancelled"
    assert get(queued["result_url"])["status"] == "cancelled"
    server.hold_work()
    server.release()
    server.wait_for(lambda: server.jobs[1].state == "in_progress")
    answer = requests.post(next_one["cancel_url"], headers=TOKEN)
    assert (answer.status_code, answer.json()["outcome"]) == (202, "not_cancellable")
    server.release_work()
    server.wait_for(lambda: server.jobs[1].finished_at)
    assert requests.post(next_one["cancel_url"], headers=TOKEN).json()["outcome"] == "not_cancellable"


def test_bodies_of_ended_jobs_are_forgotten_where_asked_for():
    with RehearsalServer(keep_bodies=False) as server:
        server.outcome = "no_output"
        server.hold()
        urls = submit(server).json()
        assert server.jobs[0].body == text_body()
        server.release()
        server.wait_for(lambda: server.jobs[0].finished_at)
        assert server.jobs[0].body == {}
        assert get(urls["result_url"])["status"] == "succeeded"


def test_the_catalogue_knows_six_models(server):
    for model in MODELS:
        entry = get(f"{server.base_url}/v1/models/{model}")
        assert (entry["model_id"], entry["base_price_usd"], entry["price_unit"]) == (model, 0.14, "second")
        fields = entry["input_schema"]["properties"]
        assert ("end_image_url" in fields) == (model.endswith("image-to-video") and "standard" not in model)
        assert ("intelligent" in fields["shot_type"]["enum"]) == (model == "kling/kling-3.0/standard/text-to-video")
    refused(requests.get(f"{server.base_url}/v1/models/kling/kling-9/pro/x", headers=TOKEN), 400, 400001)


def test_what_an_account_may_not_do(server):
    refused(submit(server, headers={}), 400, 400004)
    refused(submit(server, headers={"Authorization": "Bearer "}), 400, 400004)
    refused(submit(server, headers={"Authorization": "Basic first"}), 400, 400004)
    refused(submit(server, model="kling/kling-3.0/ultra/text-to-video"), 400, 400001)
    urls = submit(server).json()
    other = {"Authorization": "Bearer second"}
    refused(requests.get(urls["status_url"], headers=other), 403, 403001)
    refused(requests.get(urls["result_url"], headers=other), 403, 403001)
    refused(requests.post(urls["cancel_url"], headers=other), 403, 403001)
    for call, method in (("status", "GET"), ("result", "GET"), ("cancel", "POST")):
        url = f"{server.base_url}/v1/requests/unknown/{call}"
        refused(requests.request(method, url, headers=TOKEN), 404, 404001)
    server.refuse = 400002
    refused(submit(server), 400, 400002)
    server.refuse = 403001
    refused(submit(server), 403, 403001)
    assert len(server.jobs) == 1


def test_one_token_and_no_other():
    with RehearsalServer(token="first") as server:
        server.outcome = "no_output"
        refused(submit(server, headers={"Authorization": "Bearer second"}), 400, 400004)
        assert submit(server).status_code == 200


def test_other_paths_and_methods_answer_json(server):
    refused(requests.get(f"{server.base_url}/"), 404, 404)
    refused(requests.get(f"{server.base_url}/files/other.mp4"), 404, 404)
    refused(requests.delete(f"{server.base_url}/v1/models/{TEXT}", headers=TOKEN), 405, 405)
    refused(requests.post(f"{server.base_url}/v1/requests/x/status", headers=TOKEN), 405, 405)
    assert server.calls[0] == ("GET", "/")


def test_a_kept_alive_connection_survives_a_refusal(server):
    with requests.Session() as session:
        for body in (b"no json", b'{"prompt": NaN}'):
            answer = session.post(f"{server.base_url}/v1/models/{TEXT}", data=body, headers=TOKEN)
            refused(answer, 422, 422)
        unread = session.post(f"{server.base_url}/nowhere", data=b"x" * 100_000)
        refused(unread, 404, 404)
        assert session.post(f"{server.base_url}/v1/models/{TEXT}", json=text_body(), headers=TOKEN).ok


def test_a_stopped_server_drops_even_idle_connections():
    server = RehearsalServer().start()
    with requests.Session() as session:
        assert session.get(f"{server.base_url}/").status_code == 404
        server.stop()
        with pytest.raises(requests.ConnectionError):
            session.get(f"{server.base_url}/")


def shots(*seconds):
    return [{"prompt": f"Shot {number}.", "duration": length} for number, length in enumerate(seconds)]


GOOD = {
    "every field of text to video": (
        TEXT,
        text_body(
            negative_prompt="blur",
            duration=15,
            aspect_ratio="9:16",
            cfg_scale=1,
            sound=False,
            multi_prompt=shots(5, 5, 5),
            shot_type="customize",
        ),
    ),
    "only the prompt": (TEXT, {"prompt": "A lake."}),
    "no shots": (TEXT, text_body(multi_prompt=[])),
    "a shot of the default length": (TEXT, text_body(duration=8, multi_prompt=[{"prompt": "One."}, *shots(3)])),
    "intelligent on standard": (MODELS[0], text_body(shot_type="intelligent")),
    "every field of image to video": (
        "kling/kling-3.0/4k/image-to-video",
        image_body(
            end_image_url=data_uri("jpeg"),
            generate_audio=True,
            elements=[
                {"frontal_image_url": data_uri("webp"), "reference_image_urls": [data_uri("bmp")]},
                {"video_url": "https://example.com/kite.mp4"},
                {},
            ],
            multi_prompt=shots(3),
            shot_type="customize",
            negative_prompt="",
            cfg_scale=0.25,
        ),
    ),
    "a link": (IMAGE, image_body(start_image_url="https://example.com/a.png?X-Signature=abc")),
    "a link to loopback": (IMAGE, image_body(start_image_url="http://127.0.0.1:8188/a.png")),
}


@pytest.mark.parametrize(("model", "body"), GOOD.values(), ids=GOOD)
def test_a_good_body_is_accepted(server, model, body):
    answer = submit(server, model, body)
    assert answer.status_code == 200, answer.text
    assert (server.jobs[0].model_id, server.jobs[0].body) == (model, body)


LARGE = "data:image/png;base64," + base64.b64encode(bytes(6 * 1024 * 1024 + 1)).decode()

BAD = {
    "no prompt": (TEXT, {"duration": 5}, ["prompt"]),
    "an empty prompt": (TEXT, text_body(prompt=""), ["prompt"]),
    "a number as prompt": (TEXT, text_body(prompt=5), ["prompt"]),
    "no start image": (IMAGE, {"prompt": "x"}, ["start_image_url"]),
    "too short": (TEXT, text_body(duration=2), ["duration"]),
    "too long": (TEXT, text_body(duration=16), ["duration"]),
    "half a second": (TEXT, text_body(duration=5.0), ["duration"]),
    "a bool as integer": (TEXT, text_body(duration=True), ["duration"]),
    "a string as integer": (TEXT, text_body(duration="5"), ["duration"]),
    "a bool as number": (TEXT, text_body(cfg_scale=True), ["cfg_scale"]),
    "cfg_scale over 1": (TEXT, text_body(cfg_scale=1.01), ["cfg_scale"]),
    "a number as bool": (TEXT, text_body(sound=1), ["sound"]),
    "null": (TEXT, text_body(negative_prompt=None), ["negative_prompt"]),
    "an unknown ratio": (TEXT, text_body(aspect_ratio="4:3"), ["aspect_ratio"]),
    "intelligent on pro": (TEXT, text_body(shot_type="intelligent"), ["shot_type"]),
    "intelligent from an image": (IMAGE, image_body(shot_type="intelligent"), ["shot_type"]),
    "an end image on standard": (IMAGE, image_body(end_image_url=data_uri()), ["end_image_url"]),
    "audio by its other name": (TEXT, text_body(generate_audio=True), ["generate_audio"]),
    "a ratio beside an image": (IMAGE, image_body(aspect_ratio="1:1"), ["aspect_ratio"]),
    "a seed": (TEXT, text_body(seed=1), ["seed"]),
    "shots of another length": (TEXT, text_body(duration=10, multi_prompt=shots(3, 3)), ["multi_prompt"]),
    "shots against the default": (TEXT, {"prompt": "x", "multi_prompt": shots(6)}, ["multi_prompt"]),
    "a short shot": (TEXT, text_body(duration=5, multi_prompt=shots(2, 3)), ["multi_prompt", 0, "duration"]),
    "a silent shot": (TEXT, text_body(multi_prompt=[{"duration": 3}]), ["multi_prompt", 0, "prompt"]),
    "a shot with more": (TEXT, text_body(multi_prompt=[{"prompt": "x", "seed": 1}]), ["multi_prompt", 0, "seed"]),
    "21 shots": (TEXT, text_body(multi_prompt=shots(*[3] * 21)), ["multi_prompt"]),
    "four elements": (IMAGE, image_body(elements=[{}] * 4), ["elements"]),
    "an element with more": (IMAGE, image_body(elements=[{"name": "x"}]), ["elements", 0, "name"]),
    "a reference that is no URL": (
        IMAGE,
        image_body(elements=[{"reference_image_urls": [data_uri(), "cat.png"]}]),
        ["elements", 0, "reference_image_urls", 1],
    ),
    "plain http": (IMAGE, image_body(start_image_url="http://example.com/a.png"), ["start_image_url"]),
    "a file": (IMAGE, image_body(start_image_url="file:///etc/passwd"), ["start_image_url"]),
    "no host": (IMAGE, image_body(start_image_url="https:///a.png"), ["start_image_url"]),
    "a gif": (IMAGE, image_body(start_image_url="data:image/gif;base64,R0lGODlh"), ["start_image_url"]),
    "no base64": (IMAGE, image_body(start_image_url="data:image/png;base64,???"), ["start_image_url"]),
    "nothing inline": (IMAGE, image_body(start_image_url="data:image/png;base64,"), ["start_image_url"]),
    "over 6 MiB": (IMAGE, image_body(start_image_url=LARGE), ["start_image_url"]),
    "an image as video": (IMAGE, image_body(elements=[{"video_url": data_uri()}]), ["elements", 0, "video_url"]),
    "a list": (TEXT, [], []),
}


@pytest.mark.parametrize(("model", "body", "where"), BAD.values(), ids=BAD)
def test_a_bad_body_is_refused_by_field(server, model, body, where):
    answer = requests.post(f"{server.base_url}/v1/models/{model}", json=body, headers=TOKEN)
    detail = refused(answer, 422, 422)["detail"]
    assert [problem["loc"] for problem in detail] == [["body", *where]]
    assert not server.jobs


def test_a_request_over_64_mib_is_refused(server):
    request = requests.Request("POST", f"{server.base_url}/v1/models/{TEXT}", headers=TOKEN).prepare()
    request.headers["Content-Length"] = str(64 * 1024 * 1024 + 1)
    with requests.Session() as session:
        refused(session.send(request), 413, 413)


@contextlib.contextmanager
def web_server(content: bytes):
    class Files(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/still.png" else 404)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_remote_stills_are_fetched_where_asked_for():
    still = io.BytesIO()
    Image.new("RGB", (360, 360), (200, 30, 30)).save(still, "PNG")
    with web_server(still.getvalue()) as web, RehearsalServer(fetch_remote=True) as server:
        urls = submit(server, IMAGE, image_body(start_image_url=f"{web}/still.png")).json()
        lost = submit(server, IMAGE, image_body(start_image_url=f"{web}/gone.png")).json()
        server.wait_for(lambda: all(job.finished_at for job in server.jobs))
        clip = requests.get(get(urls["result_url"])["output"]["video"]).content
        failure = get(lost["result_url"])
    with av.open(io.BytesIO(clip)) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    red, green, blue = picture[picture.shape[0] // 3, picture.shape[1] // 2]
    assert red > 170 > 70 > max(green, blue)
    assert failure["status"] == "failed"
    assert "start_image_url" in failure["error"]
    assert "404" in failure["error"]


def test_a_still_that_is_none_fails_its_job_and_not_the_next(server):
    server.outcome = "succeeded"
    broken = "data:image/png;base64," + base64.b64encode(b"no picture").decode()
    urls = submit(server, IMAGE, image_body(start_image_url=broken)).json()
    server.wait_for(lambda: server.jobs[0].finished_at)
    result = get(urls["result_url"])
    assert result["status"] == "failed"
    assert "start_image_url" in result["error"]
    server.outcome = "no_output"
    submit(server)
    assert server.wait_for(lambda: server.jobs[1].ending) == "succeeded"


def test_waiting_in_vain_is_an_error(server):
    with pytest.raises(TimeoutError):
        server.wait_for(lambda: server.jobs, timeout=0.01)


def test_it_runs_as_a_process_of_its_own():
    command = [sys.executable, "-m", "nodes.rehearsal.server", "--token", "first", "--work-seconds", "60"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            base_url = process.stdout.readline().strip()
            answer = requests.post(f"{base_url}/v1/models/{TEXT}", json=text_body(), headers=TOKEN)
            assert get(answer.json()["status_url"])["status"] in ("in_queue", "in_progress")
        finally:
            process.kill()
