"""Chromium, which opens pages without a screen for tests and for `scripts/bench_page`.

It is Debian's package `chromium`, or what `MEMPLAN_CHROMIUM` names, or whatever Chromium or Chrome is on the PATH. The
package `playwright` drives it and brings no browser of its own; it is in the extra `test`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


def find_chromium() -> str | None:
    """Returns the path of a Chromium; None if there is none."""
    named = os.environ.get("MEMPLAN_CHROMIUM")
    return named or next((path for path in map(shutil.which, NAMES) if path is not None), None)


@contextmanager
def opened_chromium(path: str) -> Iterator[Any]:
    """Yields a browser of playwright, without network and without a screen."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # The sandbox needs a user that is not root; pages of tests are files of ours.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = driver.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def wait_until_drawn(page: Any) -> None:
    """Waits until a page of a report has drawn its picture.

    `wait_for_function` would evaluate its text again and again, which the policy of the page forbids after the first time.
    """
    page.evaluate("""async () => {
      for (let frame = 0; frame < 3000; frame += 1) {
        if (globalThis.memplanPage?.stats.pictures > 0) return;
        await new Promise(requestAnimationFrame);
      }
      throw new Error("the page has drawn nothing");
    }""")


if __name__ == "__main__":
    sys.exit(find_chromium() is None)
