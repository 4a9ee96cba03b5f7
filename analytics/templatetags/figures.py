"""What a page has thousands of: a template's own loop takes ten times as long."""

from django import template
from django.utils.html import format_html_join
from django.utils.safestring import SafeString

from analytics.reports.charts.plots import Plot
from analytics.reports.charts.tables import DataTable

register = template.Library()

NUMBER = '<td class="dash-number">{}</td>'
NAME = '<th scope="row"><span class="dash-name">{}</span></th>'


@register.filter
def table_rows(table: DataTable) -> SafeString:
    row = "".join(NUMBER if column.is_number else NAME for column in table.columns)
    return format_html_join("\n", f"<tr>{row}</tr>", ([text for _, text in cells] for cells in table.cells))


@register.filter
def plot_days(plot: Plot) -> SafeString:
    """Draw the area of each day, which shows its figures when pointed at."""
    area = f'y="{plot.top}" height="{plot.drawn_height}" fill-opacity="0"'
    day = f'<rect class="plot-day" x="{{}}" width="{{}}" {area}><title>{{}}</title></rect>'
    return format_html_join("", day, ((column.x, column.width, column.text) for column in plot.columns))
