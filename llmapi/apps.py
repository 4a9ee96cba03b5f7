from datetime import timedelta

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig
from django.core.checks import Tags, register
from django.core.signals import request_finished, request_started
from django.db import close_old_connections


class ProjectConfig(AppConfig):
    name = "llmapi"

    def ready(self) -> None:
        # Models can be imported only once all apps are loaded.
        from analytics import ledger
        from analytics.ledger import partitions, retention
        from analytics.rollups import schedule
        from chat import background
        from chat.upstream import lifetimes
        from llmapi import checks, observe

        # ConnectionMiddleware does it, and earlier.
        for signal in (request_started, request_finished):
            signal.disconnect(close_old_connections)
        register(checks.check_exposed_server, Tags.security, deploy=True)
        register(checks.check_model_shutdowns)
        register(checks.check_traces)
        # chat runs background jobs. It must not import the jobs of analytics, so they are registered here. The job that
        # asks the upstream comes last: it may wait for some seconds.
        background.JOBS["rollup"] = background.Job(timedelta(minutes=1), schedule.run_due)
        background.JOBS["purge_raw_rows"] = background.Job(timedelta(minutes=10), retention.run_due)
        background.JOBS["add_ledger_months"] = background.Job(timedelta(days=1), partitions.add_months)
        background.JOBS["ask_upstream_models"] = background.Job(timedelta(days=1), lifetimes.ask_upstream)
        background.PER_PROCESS += [ledger.flush_refusals, observe.sample_ledger]


class DashboardConfig(AdminConfig):
    """Django's admin, with the dashboard at its top."""

    default_site = "llmapi.staff.site.DashboardSite"
