"""How the ids of users are spelt, so that one person is one user in every row, limit and search."""

import re
import unicodedata

# What nobody sees (Default_Ignorable_Code_Point of Unicode 15): zero-width spaces and joiners, marks of direction,
# soft hyphens, fillers, tags. Two ids that differ by them look the same.
INVISIBLE = re.compile(
    r"[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    r"\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Controls, and what ends a line or a paragraph.
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def normal_user_id(user_id: str) -> str:
    """Return the id in Unicode's form NFC (UAX 15), without what nobody sees."""
    if user_id.isascii():
        return user_id
    # Left out first: what stands apart because of it then comes together.
    return unicodedata.normalize("NFC", INVISIBLE.sub("", user_id))


def has_controls(user_id: str) -> bool:
    """Tell whether the id has a character that is no text, such as a line break."""
    return bool(CONTROLS.search(user_id))
