"""Fields of a message beside those of OpenAI. Apart from Django: the settings are checked against them."""

# Fields of a reply that an upstream may want back (UPSTREAM_MESSAGE_FIELDS), and where they are kept.
RETURNABLE = {
    "reasoning_content": "reasoning_content",
    "reasoning": "reasoning_content",
    "reasoning_details": "reasoning_details",
    "extra_content": "extra_content",
}
# Of a tool call, too: Google's models want their thought signatures back.
CALL_FIELDS = {"extra_content"}
