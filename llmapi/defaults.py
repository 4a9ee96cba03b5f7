"""What is also needed before Django's settings can be read."""

# The model of a server whose OPENAI_MODEL is not set: the successor that OpenAI names for gpt-4o-mini.
OPENAI_MODEL = "gpt-6-luna"
