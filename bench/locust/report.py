"""Draws history.csv as chart.svg and chart.png, and puts chart and summary into Locust's report.html.

Usage: report.py FOLDER
"""

import csv
import html
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")  # no display needed
from matplotlib import pyplot

from measurement import LIMIT


def main(folder):
    summary = (folder / "summary.txt").read_text(encoding="utf-8")
    with open(folder / "history.csv", encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))[:-1]  # the last is what was left of a second
    if not rows:
        sys.exit("history.csv has no whole second, so there is nothing to draw")
    draw(rows, folder)
    embed(folder / "report.html", summary, folder / "chart.svg")
    for name in "summary.txt", "report.html", "chart.svg", "chart.png", "history.csv":
        print(folder / name)


def draw(rows, folder):
    def column(name):
        return [float(row[name]) if row[name] else None for row in rows]

    seconds = column("seconds")
    figure, axes = pyplot.subplots(4, sharex=True, figsize=(9, 10), layout="constrained")
    rates, publishes, deliveries, cpu = axes
    rates.plot(seconds, column("deliveries"), label="deliveries")
    rates.plot(seconds, column("publishes"), label="publishes")
    rates.set(title="RayFlux under Locust", ylabel="per second")
    for axis, name in (publishes, "publishes"), (deliveries, "deliveries"):
        for percentile in "p99", "p95", "p50":
            axis.plot(seconds, column(f"{name}_{percentile}_ms"), label=percentile)
        axis.set(ylabel=f"latency of {name}, ms")
    cpu.plot(seconds, column("locust_cpu_percent"), label="Locust")
    if rows[0]["server_cpu_percent"]:
        cpu.plot(seconds, column("server_cpu_percent"), label="server")
    cpu.axhline(LIMIT, color="grey", linestyle=":", label="above this Locust is the limit")
    cpu.set(ylabel="CPU, % of one processor", xlabel="seconds since all were subscribed")
    for axis in axes:
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    figure.savefig(folder / "chart.svg")
    figure.savefig(folder / "chart.png", dpi=110)


def embed(report, summary, chart):
    """Locust's report has no place for what it does not know, so it goes below, outside of its own markup."""
    page = report.read_text(encoding="utf-8")
    drawing = chart.read_text(encoding="utf-8")
    drawing = drawing[drawing.index("<svg") :]  # an XML declaration has no place inside a page
    figures = f'<section style="margin: 2em; background: white"><pre>{html.escape(summary)}</pre>{drawing}</section>'
    front, end, back = page.rpartition("</body>")
    report.write_text(front + figures + end + back, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
