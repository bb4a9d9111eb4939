"""Downloads into the data folder: from published addresses or mirrors, checked by digest, resumed where they broke off.

`fetch` brings one set; `downloads_of` says what that would take. Nothing here is imported by what runs trials.
"""

from harness.fetching.bringing import Settings, Silent, Watcher, fetch
from harness.fetching.sources import Download, downloads_of

__all__ = ["Download", "Settings", "Silent", "Watcher", "downloads_of", "fetch"]
