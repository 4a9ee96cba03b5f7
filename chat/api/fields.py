"""Names of a completion's fields, apart from Django: the settings are checked against them."""

# The fields that llmapi itself acts on or refuses. All others go to the upstream as they are.
OWN = frozenset(
    {
        *("conversation_id", "message", "messages", "model", "user", "stream", "stream_options", "n", "metadata"),
        *("functions", "function_call", "modalities", "audio"),
    }
)
