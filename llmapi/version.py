"""The version of llmapi: CHANGELOG.md says what each has brought."""

VERSION = "1.0.0"
