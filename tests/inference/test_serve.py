"""The web page, requested over HTTP and used in a browser."""

import io
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from clip.inference.web import MAX_BYTES, PAGE, create_app
from tests import forked
from tests.cli.wrong_files import png

CLASSES = [f"class {i}" for i in range(23)]
TEXT = "horror number 3"
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-dev-shm-usage")  # fmt: skip


@pytest.fixture(scope="module")
def client(model):
    return TestClient(create_app(model, ["127.0.0.1"]), "http://127.0.0.1")


@pytest.fixture(scope="module")
def url(run_folder):
    """The page as `run.py serve` opens it."""
    server = forked.start("serve", "with", f"load_path={run_folder}", "serve.port=0", "num_gpus=0")
    while not (found := re.search(r"http://127\.0\.0\.1:\d+/", server.read("stdout"))):
        assert server.poll() is None
        time.sleep(0.05)
    yield found[0]
    server.terminate()
    server.wait()


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="module")
def poster():
    return encoded(Image.linear_gradient("L").convert("RGB"))


def test_it_answers_as_python_does_and_names_its_run(client, model, run_folder, poster):
    answer = client.post("/predict", data={"text": TEXT}, files={"image": poster}).json()
    assert answer["classes"] == CLASSES
    frame = model.predict([Image.open(io.BytesIO(poster)), poster, None], [TEXT, None, TEXT])
    for row in frame.to_dict("records"):
        case = answer["cases"][row["missing"]]
        assert case["predicted"] == row["predicted"]
        assert case["probabilities"] == pytest.approx([row[c] for c in CLASSES], abs=1e-6)
    assert client.post("/predict", data={"text": TEXT}).json()["cases"].keys() == {"image"}
    assert client.post("/predict", files={"image": poster}).json()["cases"].keys() == {"text"}
    about = client.get("/model").json()
    assert run_folder.name in about["run"]
    assert (about["task"], about["backbone"].split()[0]) == ("mmimdb", "clip")


def test_nothing_is_loaded_from_other_sites(client):
    found = [client.get(path) for path in ("/", "/page.js", "/page.css", "/../run.py", "/docs", "/openapi.json")]
    assert [reply.status_code for reply in found] == [200, 200, 200, 404, 404, 404]
    for reply in found:
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'self'" in reply.headers["Content-Security-Policy"]
    for path in PAGE.iterdir():
        assert not re.search(r"(https?:)?//\w", path.read_text()), f"{path}: outside resource"


@pytest.mark.parametrize(("fields", "headers", "status"), [
    ({"data": {"text": " "}}, {}, 422),
    ({"data": {"image": "not a file"}}, {}, 422),
    ({"files": {"image": b"not an image"}}, {}, 422),
    ({"files": {"image": b"\0" * (MAX_BYTES + 1)}}, {}, 413),
    ({"content": b"--x", "headers": {"Content-Type": "multipart/form-data; boundary=y"}}, {}, 400),
    ({"data": {"text": "a"}}, {"Origin": "http://evil.example"}, 403),
    ({"data": {"text": "a"}}, {"Origin": "null"}, 403),
    ({"data": {"text": "a"}}, {"Host": "evil.example"}, 400),
    ({"data": {"text": "a"}}, {"Origin": "http://127.0.0.1"}, 200),
])  # fmt: skip
def test_wrong_and_foreign_requests_are_refused(fields, headers, status, client):
    assert client.post("/predict", **{"headers": headers, **fields}).status_code == status


def test_a_decompression_bomb_is_refused_before_it_is_decoded(client, tmp_path):
    png(tmp_path / "bomb.png", 60_000)
    reply = client.post("/predict", files={"image": (tmp_path / "bomb.png").read_bytes()})
    assert reply.status_code == 422
    assert "89,478,485 pixels" in reply.json()["detail"]


def turned():
    """A wide image that EXIF says to show upright."""
    image = Image.new("RGB", (64, 32), "red")
    image.paste("blue", (32, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, "JPEG", exif=exif)


def test_the_orientation_of_exif_is_ignored(client):
    plain = encoded(Image.fromarray(np.asarray(Image.open(io.BytesIO(turned())))))
    both = [client.post("/predict", files={"image": image}).json() for image in (turned(), plain)]
    assert both[0] == both[1]


def test_simultaneous_requests_are_all_answered(url):
    client = httpx2.Client(limits=httpx2.Limits(max_connections=200), timeout=120)
    with client, ThreadPoolExecutor(200) as pool:
        replies = list(pool.map(lambda i: client.post(f"{url}predict", data={"text": f"film {i}"}), range(200)))
    assert [reply.status_code for reply in replies] == [200] * 200


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (program and driver):
        pytest.skip("the tests of the page need Debian's packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(driver)) as browser:
        yield browser


@pytest.fixture
def browser(chromium, url):
    chromium.set_window_size(1200, 900)
    chromium.get(url)
    return chromium


def at(browser, name):
    return browser.find_element(By.ID, name)


def choose(browser, folder, name, content):
    (folder / name).write_bytes(content)
    at(browser, "file").send_keys(str(folder / name))


def wait(browser, condition):
    WebDriverWait(browser, 60, 0.05).until(lambda _: browser.execute_script(f"return Boolean({condition})"), condition)


def shown(browser):
    """The table as it is read: class -> the text of its three cells."""
    rows = browser.execute_script(
        "return [...document.querySelectorAll('tbody tr')].map(r => [...r.children].map(c => c.textContent))"
    )
    return {name: cells for name, *cells in rows}


def test_an_image_and_a_text_side_by_side(browser, client, poster, tmp_path):
    wait(browser, "at('model').textContent.includes('mmimdb')")
    choose(browser, tmp_path, "poster.png", poster)
    wait(browser, "document.querySelector('tbody td[data-missing=text] i')")
    assert {tuple(cells[::2]) for cells in shown(browser).values()} == {("–", "–")}
    at(browser, "text").send_keys(TEXT)
    wait(browser, "document.querySelector('tbody td[data-missing=complete] i')")
    cases = client.post("/predict", data={"text": TEXT}, files={"image": poster}).json()["cases"]
    use_image, use_text = at(browser, "use-image"), at(browser, "use-text")
    for case, clicks in (("complete", []), ("text", [use_text]), ("image", [use_text, use_image])):
        for box in clicks:
            box.click()
        order = np.argsort([-value for value in cases[case]["probabilities"]], kind="stable")[:8]
        wanted = {CLASSES[i]: [f"{100 * c['probabilities'][i]:.1f} %" for c in cases.values()] for i in order}
        assert list(shown(browser).items()) == list(wanted.items())
        assert browser.execute_script("return document.querySelector('thead .selected').dataset.missing") == case
    browser.set_window_size(500, 800)
    assert browser.execute_script("return document.documentElement.scrollWidth - innerWidth") <= 0
    assert browser.get_log("browser") == []


def test_errors_are_shown_and_the_last_choice_counts(browser, poster, tmp_path):
    choose(browser, tmp_path, "notes.png", b"not an image")
    wait(browser, "at('error').textContent.includes('cannot be decoded')")
    choose(browser, tmp_path, "large.png", b"\0" * (10 * 2**20 + 1))
    wait(browser, "at('error').textContent.includes('large.png')")
    assert not at(browser, "answer").is_displayed()
    assert not at(browser, "preview").is_displayed()
    choose(browser, tmp_path, "notes.txt", b"words")
    wait(browser, "at('error').textContent.includes('notes.txt')")
    browser.execute_script("const f = at('file').files[0]; ask(); choose(null)")
    wait(browser, "at('error').hidden && at('status').textContent.startsWith('Give')")
    unnamed = "return [...document.querySelectorAll('input, textarea')].filter(f => !f.labels.length).length"
    assert browser.execute_script(unnamed) == 0


def test_an_answer_to_an_older_request_is_not_shown(browser, poster, tmp_path):
    browser.execute_script(
        "const post = fetch; window.fetch = async (...given) => {"
        "const reply = await post(given[0], {...given[1], signal: undefined});"
        "await new Promise(resume => { window.resume = resume; }); return reply; }"
    )
    choose(browser, tmp_path, "poster.png", poster)
    wait(browser, "window.resume")
    choose(browser, tmp_path, "notes.txt", b"words")
    browser.execute_async_script("resume(); setTimeout(arguments[0], 300)")
    assert not at(browser, "answer").is_displayed()
    assert "notes.txt" in at(browser, "error").text


def test_files_can_be_dropped_and_are_shown_as_predicted(browser, tmp_path):
    drop = (
        "const held = new DataTransfer(); if (arguments[0]) held.items.add(new File("
        "[new Uint8Array(arguments[0])], 'mine.jpeg', {type: 'image/jpeg'})); else held.setData('text/plain', 'a');"
        "return ['dragover', 'drop'].map(kind => at('drop').dispatchEvent("
        "new DragEvent(kind, {dataTransfer: held, bubbles: true, cancelable: true})));"
    )
    assert browser.execute_script(drop, None) == [True, True]  # text is left to the browser
    assert browser.execute_script(drop, list(turned())) == [False, False]  # otherwise the page would be replaced
    wait(browser, "document.querySelector('tbody td[data-missing=text] i')")
    assert browser.execute_script("return at('file').files[0].name") == "mine.jpeg"
    assert browser.execute_script("return at('preview').offsetWidth > at('preview').offsetHeight")
