"""Headless Chromium, driven by its DevTools protocol: shows pages, runs scripts in them, presses keys."""

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import requests
import websocket

PROGRAM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")
"""Path of the browser; '' where none is installed."""
KEYS = {"Enter": 13, "Tab": 9, " ": 32, "ArrowRight": 39, "ArrowLeft": 37}
"""Key that is not a character -> its code."""
WIDTHS = (400, 1400)
"""Widths of windows in pixels: a phone, a screen."""
PROBLEMS = """(() => {
  const shown = (e) => e.checkVisibility() && !e.closest('[disabled], .skip, audio, script, style');
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => numbers(color).slice(0, 3).map((c) => c / 255)
    .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor;
      if ((numbers(color)[3] ?? 1) > 0) return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const found = [];
  if (document.documentElement.scrollWidth > innerWidth) found.push('the page scrolls sideways');
  for (const e of document.body.querySelectorAll('*')) {
    const text = [...e.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join(' ').trim();
    if (!text || !shown(e)) continue;
    const style = getComputedStyle(e), size = parseFloat(style.fontSize);
    const ink = e.namespaceURI.endsWith('svg') ? style.fill : style.color;
    const [high, low] = [light(ink), light(ground(e))].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    const large = size >= 24 || (size >= 18.6 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) found.push(`faint (${ratio.toFixed(1)}): ${text.slice(0, 40)}`);
    const box = e.getBoundingClientRect();
    if (box.right > innerWidth + 1 && !e.closest('.scroll')) found.push(`cut off: ${text.slice(0, 40)}`);
  }
  return [...new Set(found)];
})()"""
"""Script that lists text that is cut off, or has less contrast than WCAG 2 asks for (level AA)."""


class PageError(AssertionError):
    """A script of the page, or one that the test ran in it, failed."""


class Browser:
    """One tab.

    Args:
        socket: Connection to the tab.
    """

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket, self._numbers = socket, count(1)
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and returns its result; events that arrive meanwhile are looked through for errors."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(answer["params"]["exceptionDetails"])[:500])
            if answer.get("id") == number:
                if "error" in answer:
                    raise PageError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def show(self, page: Path | str, width: int = 1400, height: int = 900, dark: bool = False) -> None:
        """Loads a file or an address in a window of this width, and waits until it is loaded."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = "dark" if dark else "light"
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.run("window.isPrevious = true")
        self.send("Page.navigate", url=page if isinstance(page, str) else page.absolute().as_uri())
        self.wait_for("!window.isPrevious && document.readyState === 'complete'")
        if self.run("location.protocol") == "chrome-error:":
            raise PageError(f"{page} cannot be loaded")

    def run(self, script: str) -> Any:
        """Returns the value of an expression in the page.

        Raises:
            PageError: it throws.
        """
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise PageError(json.dumps(answer["exceptionDetails"])[:1000])
        return answer["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Waits until an expression is true.

        Raises:
            PageError: it is not after a minute.
        """
        end = time.monotonic() + 60.0
        while not self.run(script):
            if time.monotonic() > end:
                raise PageError(f"never became true: {script}")
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """Presses and releases a key, a character or one of `KEYS`, where the focus is."""
        code = KEYS.get(key) or ord(key.upper())
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        common = {"key": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def picture(self, path: Path) -> Path:
        """Writes a PNG of the whole page."""
        content = self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(content))
        return path


def appearance_problems(browser: Browser, page: Path | str) -> list[str]:
    """Returns what is wrong with a page in narrow and wide windows, in light and dark mode; also failed scripts."""
    found = []
    for width in WIDTHS:
        for dark in (False, True):
            browser.show(page, width=width, dark=dark)
            found += [f"{width} px, {'dark' if dark else 'light'}: {problem}" for problem in browser.run(PROBLEMS)]
    return found + browser.errors


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """Starts Chromium with an empty profile in a folder, and ends it afterwards."""
    arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--mute-audio"]
    arguments += ["--remote-allow-origins=*", "--autoplay-policy=no-user-gesture-required", "--no-first-run"]
    profile.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [PROGRAM, *arguments, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with closing(websocket.create_connection(_address(process, profile), timeout=120)) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait(timeout=60)


def _address(process: subprocess.Popen, profile: Path) -> str:
    """Returns the address of the first tab, as soon as the browser has written down its port."""
    end = time.monotonic() + 120.0
    written = profile / "DevToolsActivePort"
    while time.monotonic() < end and process.poll() is None:
        if written.is_file() and (lines := written.read_text().splitlines()):
            tabs = requests.get(f"http://127.0.0.1:{lines[0]}/json/list", timeout=60).json()
            if found := [tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"]:
                return str(found[0])
        time.sleep(0.05)
    raise PageError(f"{PROGRAM} did not start (exit {process.poll()})")
