"""The page: asked by HTTP as any program can, and by a browser as a person does."""

import base64
import http.client
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import clip
from clip.inference.web import MOST_BODY, MOST_BYTES, PAGE
from clip.utils.images import square
from tests import predicting as p
from tests.cli.wrong_files import png
from tests.conftest import ROOT
from tests.inference.browser import Browser, find_chromium
from vilt.utils import raw

CLASSES = [f"class {i}" for i in range(23)]
TEXT = "horror number 3"


@pytest.fixture(scope="module")
def run_folder(clip_folder, tmp_path_factory):
    return p.write_run(clip_folder, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def port(run_folder):
    """The page as `run.py serve` opens it."""
    command = [sys.executable, "run.py", "serve", "with", f"load_path={run_folder}", "port=0",
               "num_gpus=0"]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        lines = iter(server.stdout.readline, "")
        found = next(filter(None, (re.search(r"http://127\.0\.0\.1:(\d+)/", s) for s in lines)))
        yield int(found[1])
        server.terminate()


def request(port, method, path, body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    return reply, reply.read()


def ask(port, body, **headers):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | headers
    reply, content = request(port, "POST", "/predict", body, **headers)
    return reply.status, json.loads(content)


@pytest.fixture(scope="module")
def poster():
    file = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(file, "PNG")
    return file.getvalue()


def encoded(data):
    return base64.b64encode(data).decode()


def test_the_page_answers_as_python_does(port, run_folder, poster):
    status, said = ask(port, {"image": encoded(poster), "text": TEXT})
    assert status == 200
    assert said["classes"] == CLASSES
    with Image.open(io.BytesIO(poster)) as image:
        frame = clip.load(run_folder).predict([image, image, None], [TEXT, None, TEXT])
    for row in frame.to_dict("records"):
        state = said["states"][row["missing"]]
        assert state["predicted"] == row["predicted"]
        assert state["probabilities"] == pytest.approx([row[c] for c in CLASSES], abs=1e-6)
    assert ask(port, {"image": None, "text": TEXT})[1]["states"].keys() == {"image"}
    assert ask(port, {"image": encoded(poster)})[1]["states"].keys() == {"text"}


def test_every_answer_forbids_foreign_content(port):
    pages = [("GET", "/"), ("GET", "/page.js"), ("GET", "/page.css"), ("GET", "/../run.py"),
             ("POST", "/predict"), ("PUT", "/")]  # fmt: skip
    found = [request(port, *page)[0] for page in pages]
    assert [reply.status for reply in found] == [200, 200, 200, 404, 404, 501]
    for reply in found:
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    for path in PAGE.iterdir():
        assert not re.search(r"(https?:)?//\w", path.read_text()), f"{path}: outside resource"


REFUSED = [
    ({}, {}, 422, "both missing"),
    ({"text": 5}, {}, 422, "the text is 5"),
    ({"image": "no base64!"}, {}, 400, "not in base64"),
    ({"image": encoded(b"no image")}, {}, 422, "cannot be decoded"),
    ([], {}, 400, "no JSON object"),
    (b"{", {}, 400, "no JSON object"),
    ({"text": "a"}, {"Content-Type": "text/plain"}, 404, "post JSON"),
    ({"text": "a"}, {"Host": "evil.example:80"}, 404, "this address"),
    ({"text": "a"}, {"Content-Length": "9" * 5000}, 411, "how long"),
    (b" " * (MOST_BODY + 1), {}, 413, "over 10 MB"),
    ({"image": encoded(b"\0" * (MOST_BYTES + 1))}, {}, 413, "over 10 MB"),
]


@pytest.mark.parametrize(("body", "headers", "status", "words"), REFUSED)
def test_what_it_refuses_is_said_in_words(body, headers, status, words, port):
    found, said = ask(port, body, **headers)
    assert found == status
    assert words in said["error"]


def test_a_body_at_a_wrong_address_is_read_away_and_answered(port):
    body = b" " * (MOST_BODY + 1)  # had it been looked at, it would be too long
    reply, _ = request(port, "POST", "/other", body, **{"Content-Type": "application/json"})
    assert reply.status == 404
    assert ask(port, body, Host="evil.example")[0] == 404


def turned(colours):
    """A wide image of two colours which EXIF says to show upright."""
    image = Image.new("RGB", (64, 32), colours[0])
    image.paste(colours[1], (32, 0, 64, 32))
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(file, "JPEG", exif=exif)
    return file.getvalue()


def test_an_image_is_predicted_as_it_is_stored_whatever_exif_says(port):
    data = turned(("red", "blue"))
    with Image.open(io.BytesIO(data)) as image:
        plain = io.BytesIO()
        Image.fromarray(np.asarray(image)).save(plain, "PNG")
    assert raw.encode_image(data, lambda image: square(image, 16)) == raw.encode_image(
        plain.getvalue(), lambda image: square(image, 16)
    )
    both = [ask(port, {"image": encoded(each)})[1] for each in (data, plain.getvalue())]
    assert both[0] == both[1]


def test_a_bomb_is_refused_before_it_is_decoded(port, tmp_path):
    png(tmp_path / "bomb.png", 60_000)
    status, said = ask(port, {"image": encoded((tmp_path / "bomb.png").read_bytes())})
    assert status == 422
    assert "the image has over 89,478,485 pixels" in said["error"]
    assert ask(port, {"text": TEXT})[0] == 200


@pytest.fixture
def browser(port, tmp_path):
    if not (program := find_chromium()):
        pytest.skip("no Chromium is installed")
    with Browser(program, tmp_path / "profile") as browser:
        browser.open(f"http://127.0.0.1:{port}/")
        yield browser


def shown(browser):
    """The table as it is read: class -> what the three cells say."""
    rows = browser.js("[...document.querySelectorAll('tbody tr')].map(r => "
                      "[...r.children].map(c => c.textContent))")  # fmt: skip
    return {name: cells for name, *cells in rows}


def status(browser):
    return browser.js("document.getElementById('status').textContent")


def test_a_person_drops_an_image_types_a_text_and_unticks_one(browser, port, run_folder, poster, tmp_path):
    (tmp_path / "poster.png").write_bytes(poster)
    browser.choose_file("#file", tmp_path / "poster.png")
    browser.wait("document.querySelector('tbody td[data-state=text] i')")
    assert {tuple(cells[::2]) for cells in shown(browser).values()} == {("–", "–")}
    browser.type("#text", TEXT)
    browser.wait("document.querySelector('tbody td[data-state=complete] i')")
    states = ask(port, {"image": encoded(poster), "text": TEXT})[1]["states"]
    for asked, tick in (("complete", None), ("text", "use-text"), ("image", "use-image")):
        if tick:
            browser.js("document.querySelectorAll('.tick input').forEach("
                       f"box => box.checked !== (box.id !== '{tick}') && box.click())")  # fmt: skip
        values = states[asked]["probabilities"]
        order = sorted(range(23), key=lambda i: -values[i])[:8]
        table = shown(browser)
        assert list(table) == [CLASSES[i] for i in order]
        for i in order:
            wanted = [f"{100 * states[s]['probabilities'][i]:.1f} %" for s in
                      ("complete", "text", "image")]  # fmt: skip
            assert table[CLASSES[i]] == wanted
        assert browser.js("document.querySelector('thead .asked').dataset.state") == asked
    widths = browser.js("[...document.querySelectorAll('tbody td.asked i')].map(bar => "
                        "bar.offsetWidth / bar.parentElement.offsetWidth)")  # fmt: skip
    assert widths == pytest.approx([values[i] for i in order], abs=0.02)
    browser.resize(360, 800)
    root = "document.documentElement"
    assert browser.js(f"{root}.scrollWidth - {root}.clientWidth") == 0  # nothing sticks out
    assert browser.complaints() == []


def test_errors_stand_on_the_page_in_words(browser, tmp_path):
    (tmp_path / "notes.png").write_text("no image")
    browser.choose_file("#file", tmp_path / "notes.png")
    browser.wait("!document.getElementById('error').hidden")
    assert "cannot be decoded" in browser.js("document.getElementById('error').textContent")
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    browser.choose_file("#file", tmp_path / "large.png")
    browser.wait("document.getElementById('error').textContent.includes('over 10 MB')")
    assert browser.js("at('answer').hidden && at('preview').hidden")
    browser.js("document.getElementById('clear').click()")
    browser.wait("document.getElementById('error').hidden")
    assert status(browser) == "Give an image, a text, or both."
    unnamed = browser.js("[...document.querySelectorAll('input, textarea')].filter("
                         "field => !field.labels.length).length")  # fmt: skip
    assert unnamed == 0


def test_the_last_choice_counts_and_a_file_that_cannot_be_read_is_named(browser, poster, tmp_path):
    (tmp_path / "poster.png").write_bytes(poster)
    browser.choose_file("#file", tmp_path / "poster.png")
    browser.wait("!at('preview').hidden")
    browser.js("Promise.all([choose(at('file').files[0]), choose(null)])")
    assert browser.js("at('preview').hidden")
    (tmp_path / "poster.png").unlink()
    browser.js("choose(at('file').files[0])")
    assert browser.js("at('error').textContent") == "poster.png cannot be read"


DROP = """(() => {
  const held = new DataTransfer();
  HELD;
  const made = (kind) => new DragEvent(kind, {dataTransfer: held, bubbles: true, cancelable: true});
  return ["dragover", "drop"].map((kind) => at("drop").dispatchEvent(made(kind)));
})()"""


def test_a_dropped_file_is_read_and_named_and_dropped_words_are_the_browsers(browser, poster):
    image = f"Uint8Array.from(atob('{encoded(poster)}'), (letter) => letter.charCodeAt(0))"
    file = f"held.items.add(new File([{image}], 'mine.png', {{type: 'image/png'}}))"
    assert browser.js(DROP.replace("HELD", "held.setData('text/plain', 'a plot')")) == [True, True]
    assert browser.js("at('preview').hidden")
    assert browser.js(DROP.replace("HELD", file)) == [False, False]  # else the page would go
    browser.wait("document.querySelector('tbody td[data-state=text] i')")
    assert browser.js("at('file').files[0].name") == "mine.png"


def test_the_page_shows_an_image_as_it_is_predicted(browser, tmp_path):
    (tmp_path / "turned.jpeg").write_bytes(turned(("red", "blue")))
    browser.choose_file("#file", tmp_path / "turned.jpeg")
    browser.wait("at('preview').complete && at('preview').naturalWidth")
    assert browser.js("at('preview').offsetWidth > at('preview').offsetHeight")


def test_an_answer_to_an_older_question_is_not_shown(browser, poster, tmp_path):
    (tmp_path / "poster.png").write_bytes(poster)
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    browser.js("(() => { const observed = fetch; window.fetch = async (...given) => {"
               "await new Promise(go => { window.letGo = go; });"
               "return real(...given); }; })()")  # fmt: skip
    browser.choose_file("#file", tmp_path / "poster.png")
    browser.wait("window.letGo")
    browser.choose_file("#file", tmp_path / "large.png")
    browser.wait("at('error').textContent.includes('over 10 MB')")
    browser.js("(() => { window.drawn = 0; const observed = draw;"
               "draw = () => { drawn += 1; real(); }; })()")  # fmt: skip
    browser.js("letGo()")
    browser.wait("!asking")
    assert browser.js("drawn") == 0
    assert browser.js("at('answer').hidden && at('error').textContent.includes('over 10 MB')")
    (tmp_path / "notes.txt").write_text("words")
    browser.choose_file("#file", tmp_path / "notes.txt")
    browser.wait("at('error').textContent.startsWith('notes.txt is no image')")
