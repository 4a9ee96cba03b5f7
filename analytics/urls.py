from django.urls import path

from analytics.views import MetricsView

urlpatterns = [path("metrics", MetricsView.as_view(), name="metrics")]
