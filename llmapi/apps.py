from django.apps import AppConfig


class ProjectConfig(AppConfig):
    name = "llmapi"

    def ready(self) -> None:
        from llmapi import checks, logging

        checks.register_all()
        logging.configure()
