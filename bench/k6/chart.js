// Draws what k6's dashboard recorded of a run: rates, and latencies in percentiles, second by second, as SVG.
//
//	RECORD=run.ndjson CHART=run.svg TITLE='k6 http.js' k6 run chart.js
//
// It is a k6 script because k6 is what is there; it tests nothing.

export const options = { iterations: 1 };

export default function () {}

export function handleSummary() {
  return { [__ENV.CHART]: chart };
}

const width = 880, panelHeight = 200, left = 70, right = 120, top = 40, between = 34;
const colours = ['#1f77b4', '#ff7f0e', '#2ca02c'];
const latencies = [['p99', 6], ['p95', 5], ['p50', 2]]; // a trend is avg, max, med, min, p90, p95, p99

const rows = snapshots(open(__ENV.RECORD));
const chart = draw([
  { label: 'per second', lines: [['deliveries', rate('delivered')], ['publishes', rate('published')]] },
  { label: 'latency of publishes, ms', lines: percentiles('publish_latency') },
  { label: 'latency of deliveries, ms', lines: percentiles('delivery_latency') },
]);

// snapshots reads the record: each line has the values of all metrics known by then, in the order of their names.
function snapshots(record) {
  let names = [];
  const found = [];
  for (const line of record.split('\n').filter((l) => l)) {
    const { event, data } = JSON.parse(line);
    if (event === 'metric') {
      names = [...names, ...Object.keys(data)].sort();
    } else if (event === 'snapshot') {
      found.push(Object.fromEntries(names.map((name, i) => [name, data[i]])));
    }
  }
  // Seconds in which nothing was delivered are those before the start and after the end; each gap within is drawn.
  const busy = (row) => row.delivered && row.delivered[0] > 0;
  const first = found.findIndex(busy);
  const whole = found.slice(first + 1, found.length - [...found].reverse().findIndex(busy) - 1); // border seconds are partial
  if (first < 0 || whole.length < 2) {
    throw new Error(`${__ENV.RECORD} has no two whole seconds of deliveries`);
  }
  return whole;
}

function rate(metric) {
  return rows.map((row) => value(row, metric, 1));
}

function percentiles(metric) {
  return latencies.map(([name, i]) => [name, rows.map((row) => value(row, metric, i))]);
}

function value(row, metric, i) {
  return row[metric] && row[metric].length ? row[metric][i] : 0;
}

function draw(panels) {
  const height = top + panels.length * (panelHeight + between) + 16;
  const x = (i) => left + ((width - left - right) * i) / (rows.length - 1);
  const parts = [text(left, 22, __ENV.TITLE || '', 'font-size="15"')];
  panels.forEach((panel, p) => parts.push(...drawPanel(panel, top + p * (panelHeight + between), x)));
  const bottom = height - between - 16;
  for (const i of ticks(rows.length - 1).filter((tick) => Number.isInteger(tick) && tick < rows.length)) {
    parts.push(text(x(i), bottom + 16, i, 'text-anchor="middle"'));
  }
  parts.push(text(x((rows.length - 1) / 2), bottom + 36, 'seconds', 'text-anchor="middle"'));
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" ` +
    `font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>\n${parts.join('\n')}\n</svg>\n`;
}

function drawPanel({ label, lines }, y0, x) {
  const marks = ticks(Math.max(...lines.flatMap(([, values]) => values)));
  const most = marks[marks.length - 1];
  const y = (v) => y0 + panelHeight * (1 - v / most);
  const parts = [text(0, 0, label, `text-anchor="middle" transform="translate(16 ${y0 + panelHeight / 2}) rotate(-90)"`)];
  for (const mark of marks) {
    parts.push(`<path d="M${left} ${y(mark).toFixed(1)}H${width - right}" stroke="#ddd"/>`);
    parts.push(text(left - 6, y(mark) + 4, mark, 'text-anchor="end"'));
  }
  lines.forEach(([name, values], i) => {
    const points = values.map((v, n) => `${x(n).toFixed(1)},${y(v).toFixed(1)}`).join(' ');
    parts.push(`<polyline points="${points}" fill="none" stroke="${colours[i]}" stroke-width="1.6"/>`);
    parts.push(text(width - right + 12, y0 + 16 + 18 * i, name, `fill="${colours[i]}"`));
  });
  return parts;
}

function text(x, y, words, attributes) {
  const safe = String(words).replace(/[&<>]/g, (c) => `&#${c.charCodeAt(0)};`);
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${attributes}>${safe}</text>`;
}

// ticks are round numbers from 0 to the first at or above most, about five of them.
function ticks(most) {
  const rough = (most || 1) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const count = Math.ceil((most || 1) / step);
  return Array.from({ length: count + 1 }, (_, i) => Number((i * step).toPrecision(6)));
}
