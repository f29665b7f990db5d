/**
 * The operator's view: what `/metrics` and `/keys` say, as live plots. It counts kinds of events and names no
 * device, no client and no path, because the metrics do not.
 */

interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

interface Chart {
  readonly title: string;
  /** Without `stile_` and `_total`. */
  readonly metric: string;
  /** Whose values are the lines. */
  readonly label: string;
}

interface KeyView {
  readonly tokenKeyId: string;
  readonly tokenType: number;
  readonly state: string;
  readonly notBefore: string;
  readonly retireAt: string;
}

const CHARTS: readonly Chart[] = [
  { title: "Admissions", metric: "admissions", label: "by" },
  { title: "Challenges, by reason", metric: "challenges", label: "reason" },
  { title: "Attestations, by outcome", metric: "attestations", label: "outcome" },
  { title: "Token requests, by outcome", metric: "token_requests", label: "outcome" },
  { title: "Spent store, by answer", metric: "spends", label: "outcome" },
  { title: "Listener", metric: "tls_events", label: "event" },
];
const POLL_MS = 2_000;
/** Five minutes. */
const POINTS = 150;
const [WIDTH, HEIGHT] = [300, 80];
const COLOURS = 8;

/** By chart and line: the counter's last value, and its rates by second. */
const lines = new Map<string, { last: number; rates: number[] }>();
let lastMs: number | undefined;

async function poll(): Promise<void> {
  const [metrics, keys, ready] = await Promise.all([
    text("/metrics"),
    text("/keys").catch(() => '{"keys":[]}'),
    fetch("/readyz").then(({ ok }) => ok),
  ]);
  const samples = parseMetrics(metrics);
  const nowMs = performance.now();
  const seconds = lastMs === undefined ? undefined : (nowMs - lastMs) / 1_000;
  lastMs = nowMs;
  for (const chart of CHARTS) advance(chart, samples, seconds);
  document.body.dataset["ready"] = String(ready);
  put("status", ready ? "ready" : "not ready");
  for (const chart of CHARTS) draw(chart);
  drawKeys((JSON.parse(keys) as { keys: KeyView[] }).keys);
}

async function text(path: string): Promise<string> {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.text();
}

/** The text format of Prometheus, as far as our own metrics use it. */
function parseMetrics(body: string): Sample[] {
  return body.split("\n").flatMap((line) => {
    const match = /^([a-z_:]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (match === null) return [];
    const [, name = "", labels = "", value = ""] = match;
    const pairs = [...labels.matchAll(/(\w+)="([^"]*)"/g)].map(([, key = "", of = ""]) => [
      key,
      of,
    ]);
    return [{ name, labels: Object.fromEntries(pairs) as Sample["labels"], value: Number(value) }];
  });
}

function advance(chart: Chart, samples: readonly Sample[], seconds: number | undefined): void {
  const totals = new Map<string, number>();
  for (const { labels, name, value } of samples) {
    if (name !== `stile_${chart.metric}_total`) continue;
    const line = labels[chart.label] ?? "all";
    totals.set(line, (totals.get(line) ?? 0) + value);
  }
  for (const [line, total] of totals) {
    const key = `${chart.metric} ${line}`;
    const known = lines.get(key) ?? { last: seconds === undefined ? total : 0, rates: [] };
    // A counter that went back was started anew.
    const rate = seconds === undefined ? 0 : Math.max(0, total - known.last) / seconds;
    lines.set(key, { last: total, rates: [...known.rates, rate].slice(-POINTS) });
  }
}

function linesOf({ metric }: Chart): [name: string, last: number, rates: readonly number[]][] {
  const own = [...lines].filter(([key]) => key.startsWith(`${metric} `));
  return own.map(([key, { last, rates }]) => [key.slice(metric.length + 1), last, rates]);
}

function draw(chart: Chart): void {
  const card = cardOf(chart);
  const own = linesOf(chart).toSorted(([, a], [, b]) => b - a);
  const top = Math.max(1, ...own.flatMap(([, , rates]) => rates));
  const plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  plot.setAttribute("preserveAspectRatio", "none");
  plot.setAttribute("aria-label", `${chart.title}: rates of the last five minutes`);
  own.forEach(([, , rates], i) => {
    const points = rates.map((rate, at) => {
      const x = WIDTH - (rates.length - 1 - at) * (WIDTH / (POINTS - 1));
      return `${x.toFixed(1)},${(HEIGHT - 2 - (rate / top) * (HEIGHT - 6)).toFixed(1)}`;
    });
    plot.append(svg("polyline", { points: points.join(" "), class: `line line-${i % COLOURS}` }));
  });
  const legend = document.createElement("ul");
  own.forEach(([name, last, rates], i) => {
    const item = listItem(`${name}: ${last} (${(rates.at(-1) ?? 0).toFixed(1)}/s)`);
    item.className = `line-${i % COLOURS}`;
    legend.append(item);
  });
  if (own.length === 0) legend.append(listItem("nothing yet"));
  card.replaceChildren(heading(chart.title), plot, legend);
}

function drawKeys(keys: readonly KeyView[]): void {
  const table = document.createElement("table");
  const rows = keys.map(({ notBefore, retireAt, state, tokenKeyId, tokenType }) => [
    `0x${tokenType.toString(16).padStart(4, "0")}`,
    `…${tokenKeyId.slice(-8)}`,
    state,
    notBefore.slice(0, 16).replace("T", " "),
    retireAt.slice(0, 16).replace("T", " "),
  ]);
  for (const [i, cells] of [
    ["type", "key", "state", "signs from", "to (UTC)"],
    ...rows,
  ].entries()) {
    const row = table.insertRow();
    for (const cell of cells) {
      const element = document.createElement(i === 0 ? "th" : "td");
      element.textContent = cell;
      row.append(element);
    }
  }
  document.getElementById("keys")?.replaceChildren(heading("Issuer keys"), table);
}

function cardOf({ metric }: Chart): HTMLElement {
  const known = document.getElementById(metric);
  if (known !== null) return known;
  const card = document.createElement("section");
  card.id = metric;
  document.getElementById("charts")?.append(card);
  return card;
}

function heading(title: string): HTMLElement {
  const element = document.createElement("h2");
  element.textContent = title;
  return element;
}

function listItem(content: string): HTMLElement {
  const item = document.createElement("li");
  item.textContent = content;
  return item;
}

function svg(name: string, attributes: Readonly<Record<string, string>>): SVGElement {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function put(id: string, content: string): void {
  const element = document.getElementById(id);
  if (element !== null) element.textContent = content;
}

function again(): void {
  poll()
    .catch(() => {
      document.body.dataset["ready"] = "false";
      put("status", "does not answer");
    })
    .finally(() => setTimeout(again, POLL_MS));
}

again();
