"""Pages opened in a real browser, without a network: headless Chromium against a server of this process."""
