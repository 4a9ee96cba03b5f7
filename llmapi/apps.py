from datetime import timedelta

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class ProjectConfig(AppConfig):
    name = "llmapi"

    def ready(self) -> None:
        from analytics.ledger import retention as purge
        from analytics.ledger import turns as recording
        from analytics.rollups import schedule
        from chat import background as chores
        from llmapi import checks, logging

        checks.register_all()
        logging.configure()
        # The apps do not know each other's: chat has the clock, analytics what is to be done.
        chores.TASKS["rollup"] = chores.Task(timedelta(minutes=1), schedule.run_due)
        chores.TASKS["purge_raw_rows"] = chores.Task(timedelta(minutes=10), purge.run_due)
        chores.OWN.append(recording.flush_refusals)


class DashboardConfig(AdminConfig):
    """Django's admin, with the dashboard at its top."""

    default_site = "llmapi.staff.site.DashboardSite"
