"""Forms of the admin, as a browser sends them."""

import re
from typing import Any


def form_of(page: Any) -> dict[str, str]:
    """Return what a browser would send of a page's form as it stands."""
    text = page.content.decode()
    found = {}
    for tag in re.findall(r"<input[^>]*>", text):
        attributes = dict(re.findall(r'([a-z-]+)="([^"]*)"', tag))
        is_sent = attributes.get("type") not in {"submit", "checkbox"} or " checked" in tag
        if "name" in attributes and is_sent:
            found[attributes["name"]] = attributes.get("value", "on" if attributes.get("type") == "checkbox" else "")
    for name, value in re.findall(r'<textarea[^>]*name="([^"]*)"[^>]*>\s*([^<]*)</textarea>', text):
        found[name] = value
    for name, options in re.findall(r'<select[^>]*name="([^"]*)"[^>]*>(.*?)</select>', text, re.DOTALL):
        chosen = re.search(r'<option value="([^"]*)"[^>]* selected', options)
        found[name] = chosen[1] if chosen else ""
    return found
