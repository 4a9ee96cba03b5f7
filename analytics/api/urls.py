from django.urls import path

from analytics.api.views import MetricsView, MetricTableView, MetricView

urlpatterns = [
    path("metrics", MetricsView.as_view(), name="metrics"),
    path("metrics/<slug:name>", MetricView.as_view(), name="metric"),
    path("metrics/<slug:name>.csv", MetricTableView.as_view(), {"format": "csv"}, name="metric_table"),
]
