// Draws the charts from the numbers in #data, and makes tables sortable and commands copyable.
"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const { axes = {}, charts = [], variants = [], runs = [], t95 = [], phases = null, memory = [], reached = null,
  profiles = null, along = [] } = data;
const { sensitivity = [] } = data;
const GRID_POINTS = 200;
const MANY_RUNS = 30;  // the lines of more runs hide their means, so that they are not drawn before the reader asks
const PHASE_COLOURS = ["#3a6ea5", "#8fbbe0", "#dbe7f2", "#e8c874", "#c98a3a", "#8a5a2b"];
const touch = matchMedia("(pointer: coarse)").matches;
const state = {
  axis: Object.keys(axes)[0], window: Math.min(50, Math.max(1, data.smoothing || 1)), log: false, mean: true,
  seeds: runs.length <= MANY_RUNS, on: runs.map(() => true),
};
const find = (selector, root = document) => root.querySelector(selector);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

// ---- Numbers: what a run recorded, its trailing mean, the mean over runs and its band

// Mean of each value and those before it, `window` points in all; a gap stays one, and does not count in later means.
function trailingMean(values, window) {
  return values.map((value, last) => {
    if (value === null) return null;
    let sum = 0, count = 0;
    for (let i = Math.max(0, last - window + 1); i <= last; i++) {
      if (values[i] !== null) { sum += values[i]; count++; }
    }
    return sum / count;
  });
}

// {x, y, sparse} of a run on the chosen axis, smoothed; null where it recorded nothing. Missing values are gaps. But a
// metric that hardly ever has two values in a row is one measured now and then (evaluations): its points are joined.
function recorded(run, key) {
  const xs = run.x?.[state.axis], ys = run.y?.[key];
  if (!xs || !ys) return null;
  let points = xs.map((x, i) => [x, ys[i] ?? null]).filter(([x]) => x !== null).sort((a, b) => a[0] - b[0]);
  const known = points.filter(([, y]) => y !== null);
  if (!known.length) return null;
  points = points.slice(points.indexOf(known[0]), points.indexOf(known.at(-1)) + 1);
  const inRow = points.filter(([, y], i) => i && y !== null && points[i - 1][1] !== null).length;
  const sparse = 2 * inRow < known.length - 1;
  if (sparse) points = known;
  return { x: points.map(([x]) => x), y: trailingMean(points.map(([, y]) => y), state.window), sparse };
}

// Value of a series at `x` within its range, linear between points; null in a gap.
function valueAt({ x: xs, y: ys }, x) {
  let low = 0, high = xs.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (xs[middle] <= x) low = middle; else high = middle - 1;
  }
  if (xs[low] === x) return ys[low];
  const [left, right] = [ys[low], ys[low + 1]];
  if (left === null || right === null) return null;
  return left + (right - left) * (x - xs[low]) / (xs[low + 1] - xs[low]);
}

// {x, y, half, count} over series: their mean, and half the width of its 95% band (null for one series). It goes as far
// as all series do, and has a gap where one has: a mean over changing runs would jump with who is in it.
function average(series) {
  const from = Math.max(...series.map((one) => one.x[0])), to = Math.min(...series.map((one) => one.x.at(-1)));
  if (from > to) return null;
  const inside = series.map((one) => one.x.filter((x) => x >= from && x <= to));
  const shared = inside.every((xs) => xs.length === inside[0].length && xs.every((x, i) => x === inside[0][i]));
  const step = (to - from) / (GRID_POINTS - 1);
  const even = () => Array.from({ length: GRID_POINTS }, (_, i) => (i < GRID_POINTS - 1 ? from + i * step : to));
  const x = shared ? inside[0] : from === to ? [from] : even();
  const count = series.length, t = t95[count] ?? t95.at(-1) ?? null;
  const y = [], half = [];
  for (const at of x) {
    const values = series.map((one) => valueAt(one, at));
    const mean = values.includes(null) ? null : values.reduce((sum, value) => sum + value, 0) / count;
    y.push(mean);
    if (mean === null || count < 2 || t === null) { half.push(null); continue; }
    const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (count - 1);
    half.push(t * Math.sqrt(variance / count));
  }
  return { x, y, half, count, sparse: shared && series.every((one) => one.sparse) };
}

// Closed outlines of a band, one for each stretch without a gap. On a log axis it ends at `floor`, for it has no zero.
function outline({ x, y, half }, floor) {
  const xs = [], ys = [];
  let above = [], below = [];
  const close = () => {
    for (const [px, py] of [...above, ...below.reverse()]) { xs.push(px); ys.push(py); }
    if (above.length) { xs.push(null); ys.push(null); }
    above = []; below = [];
  };
  x.forEach((at, i) => {
    const top = y[i] === null || half[i] === null ? null : y[i] + half[i];
    if (top === null || (state.log && top <= floor)) { close(); return; }
    above.push([at, top]);
    below.push([at, state.log ? Math.max(floor, y[i] - half[i]) : y[i] - half[i]]);
  });
  close();
  return { x: xs, y: ys };
}

// ---- Looks

const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function rgb(colour) {
  const probe = element("span");
  probe.style.color = colour;
  document.body.append(probe);
  const parts = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  probe.remove();
  return parts;
}

const luminance = (parts) => parts
  .map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4))
  .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);

// A variant's colour, lighter on dark paper where it would not be seen (black, dark blue).
function seenOn(paper, colour) {
  let parts = rgb(colour);
  const ground = luminance(rgb(paper));
  while (ground < 0.2 && (luminance(parts) + 0.05) / (ground + 0.05) < 4.5) {
    parts = parts.map((part) => Math.min(255, part + (255 - part) * 0.15 + 1));
  }
  return parts.map(Math.round);
}

const inkOn = (colour) => (luminance(rgb(colour)) > 0.2 ? "#000000" : "#ffffff");

function look() {
  const paper = colourOf("--paper");
  const inks = variants.map(({ colour }) => seenOn(paper, colour));
  return {
    paper, ink: colourOf("--ink"), dim: colourOf("--dim"), rule: colourOf("--rule"), grid: colourOf("--grid"),
    panel: colourOf("--panel"), thin: luminance(rgb(paper)) < 0.2 ? 0.5 : 0.35,
    line: inks.map((parts) => `rgb(${parts})`), fill: inks.map((parts) => `rgba(${parts},0.16)`),
  };
}
let colours;

// Plotly reads tags and entities in texts.
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");
const short = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

function layout(div, height, xaxis, yaxis, more = {}) {
  const axis = {
    gridcolor: colours.grid, linecolor: colours.rule, zeroline: false, automargin: true, ticks: "outside", ticklen: 4,
    tickcolor: colours.rule, fixedrange: touch, exponentformat: "power", minexponent: 4,
  };
  return {
    width: div.clientWidth, height, margin: { l: 44, r: 14, t: 8, b: 40 }, showlegend: false, hovermode: "closest",
    dragmode: touch ? false : "zoom", paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colours.dim },
    hoverlabel: { bgcolor: colours.panel, bordercolor: colours.rule, font: { color: colours.ink }, align: "left" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.dim, activecolor: colours.ink },
    xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...more,
  };
}

const config = {
  displaylogo: false, displayModeBar: touch ? false : "hover", showTips: false,
  modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]],
};

const nothing = (text) => ({
  annotations: [{ text, showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { size: 13 } }],
});

// ---- Charts

const seedOf = ({ name, seed }) => (seed === null || seed === undefined ? name : `seed ${seed}`);
const seen = (values) => (state.log ? values.map((value) => (value > 0 ? value : null)) : values);

// Lines alone do not show a point between two gaps.
function marks({ y, sparse }) {
  const lone = (value, i) => value !== null && (y[i - 1] ?? null) === null && (y[i + 1] ?? null) === null;
  const sizes = y.map((value, i) => (sparse || lone(value, i) ? 5 : 0));
  if (!sizes.some((size) => size)) return { mode: "lines" };
  return { mode: "lines+markers", marker: { size: sizes, line: { width: 0 } } };
}

function lineTrace(series, chart, variant, title, more) {
  const { line, opacity = 1, extra = "", ...rest } = more;
  const y = seen(series.y), marked = marks({ ...series, y });
  return {
    type: "scatter", x: series.x, y, opacity, ...marked, connectgaps: false,
    line: { color: colours.line[variant], ...line },
    ...(marked.marker ? { marker: { ...marked.marker, color: colours.line[variant] } } : {}),
    meta: [variants[variant].label, title, axes[state.axis], chart.title].map(plain),
    hovertemplate: "<b>%{meta[0]}</b><br>%{meta[1]}<br>%{meta[2]} %{x:,.6~r}<br>"
      + `%{meta[3]} %{y:.4g}${extra}<extra></extra>`,
    ...rest,
  };
}

// A cross at the last value of a run that failed.
function failure(run, series, chart, variant) {
  const last = seen(series.y).findLastIndex((value) => value !== null);
  return {
    type: "scatter", mode: "markers", name: `${run.name} failed`,
    x: [series.x[last] ?? null], y: [series.y[last] ?? null],
    marker: { symbol: "x-thin", size: 9, line: { width: 2.5, color: colours.line[variant] } },
    meta: [variants[variant].label, seedOf(run), chart.title].map(plain),
    hovertemplate: "<b>%{meta[0]}</b><br>%{meta[1]} failed<br>%{meta[2]} %{y:.4g}<extra></extra>",
  };
}

function drawLines(chart, div) {
  const bands = [], lines = [], means = [], spoken = [], failures = [];
  let low = Infinity, high = -Infinity, drawn = 0;
  const groups = variants.map((_, variant) => runs
    .map((run, i) => (run.variant === variant && state.on[i] && (chart.task ?? run.task) === run.task
      ? { run, series: recorded(run, chart.key ?? chart.id) } : null))
    .filter((one) => one?.series));
  for (const { series } of groups.flat()) {
    for (const y of series.y) {
      if (y !== null && (!state.log || y > 0)) { low = Math.min(low, y); high = Math.max(high, y); }
    }
  }
  groups.forEach((group, variant) => {
    const { label, dash } = variants[variant];
    for (const { run, series } of group) {
      drawn++;
      // Where the means stand by, they tell the variants apart; alone, the thin lines have to.
      const line = { width: 1.2, dash: state.mean ? "solid" : dash };
      const opacity = state.mean ? colours.thin : 0.8;
      if (state.seeds) lines.push(lineTrace(series, chart, variant, seedOf(run), { name: run.name, opacity, line }));
      if (run.state === "failed") failures.push(failure(run, series, chart, variant));
    }
    // A run that is on its way would cut the mean short, so it is no part of it where another has come to its end.
    const ended = group.filter(({ run }) => run.state === "finished");
    const middle = group.length && average((ended.length ? ended : group).map(({ series }) => series));
    if (!middle) return;
    const last = middle.y.findLast((value) => value !== null);
    if (last !== undefined) spoken.push(`${label} ends at ${Number(last.toPrecision(3))}`);
    if (!state.mean) return;
    const band = middle.half.some((half) => half !== null);
    const failed = group.filter(({ run }) => run.state === "failed").length;
    const without = ended.length && failed ? `, without ${failed} that failed` : "";
    const title = `${middle.count > 1 ? `mean of ${middle.count} runs` : "one run"}${without}`;
    means.push(lineTrace(middle, chart, variant, title, {
      name: label, line: { width: 2.4, dash }, customdata: middle.half, extra: band ? " ± %{customdata:.2g}" : "",
    }));
    if (band) {
      bands.push({
        type: "scatter", name: `${label} band`, ...outline(middle, low), mode: "lines", line: { width: 0 },
        fill: "toself", fillcolor: colours.fill[variant], hoverinfo: "skip",
      });
    }
  });
  const axis = axes[state.axis];
  const lead = `a line for each of ${drawn} runs${state.mean ? ", with mean and band of each variant" : ""}`;
  const failed = failures.map(({ name }) => name).join(", ");
  const lost = failed ? `. A cross stands where a run failed: ${failed}` : "";
  const said = drawn ? `${lead}${lost}. ${spoken.join("; ")}` : "no values";
  div.setAttribute("aria-label", `${chart.title} by ${axis}: ${said}.`);
  // A band of two runs may be a hundred times as high as what they did: lines say how far the axis goes.
  const room = (high - low) / 2, ratio = Math.sqrt(high / low);
  const clip = high > low ? (state.log ? [low, high * ratio] : [low - room, high + room]) : null;
  // Lines that all stay at one value stand in the middle; the browser's rounding would be drawn as if it were a change.
  const around = (Math.abs(low) || 2) / 2, isFlat = drawn && !state.log && high - low < 1e-9 * Math.abs(high || 1);
  const flat = isFlat ? { range: [low - around, low + around] } : {};
  const y = {
    type: state.log ? "log" : "linear", nticks: 6, ...(state.log ? { dtick: high / low > 50 ? 1 : undefined } : {}),
    ...(clip ? { autorangeoptions: { clipmin: clip[0], clipmax: clip[1] } } : {}), ...flat,
  };
  const x = { title: { text: plain(axis ?? ""), standoff: 6, font: { size: 12 } }, nticks: 7 };
  const why = !drawn ? "no values here" : high === -Infinity ? "no value above 0" : null;
  return Plotly.react(div, [...bands, ...lines, ...means, ...failures],
    layout(div, 270, x, y, { uirevision: `${state.axis} ${state.log}`, ...(why ? nothing(why) : {}) }), config);
}

const isOff = (variant) => (
  runs.some((run) => run.variant === variant) && !runs.some((run, i) => run.variant === variant && state.on[i]));

// The share of each variant's runs that is at the threshold. It is of all of its runs, whichever are shown above.
function drawStairs(div) {
  const stairs = reached.stairs[state.axis] ?? [], axis = axes[state.axis];
  const traces = [], spoken = [];
  stairs.forEach((stair, variant) => {
    if (!stair || isOff(variant)) return;
    const { label, dash } = variants[variant];
    spoken.push(`${label} ${Math.round(100 * stair.y.at(-1))} % at ${stair.x.at(-1)}`);
    const interval = stair.low.map((low, i) => (
      low === null ? "" : ` (95 %: ${low.toFixed(2)} to ${stair.high[i].toFixed(2)})`));
    traces.push({
      type: "scatter", mode: "lines", name: label, x: stair.x, y: stair.y, customdata: interval,
      line: { color: colours.line[variant], width: 2.4, dash, shape: "hv" }, meta: [label, axis].map(plain),
      hovertemplate: "<b>%{meta[0]}</b><br>%{meta[1]} %{x:,.6~r}<br>share %{y:.2f}%{customdata}<extra></extra>",
    });
  });
  div.setAttribute("aria-label", `${reached.title}, by ${axis}: ${spoken.join("; ") || "no values"}.`);
  const end = 1.02 * Math.max(0, ...stairs.map((stair) => stair?.x.at(-1) ?? 0));
  const x = { title: { text: plain(axis ?? ""), standoff: 6, font: { size: 12 } }, nticks: 7, range: [0, end || 1] };
  const y = { range: [-0.03, 1.03], tickvals: [0, 0.25, 0.5, 0.75, 1] };
  return Plotly.react(div, traces, layout(div, 270, x, y, traces.length ? {} : nothing("no values here")), config);
}

// The difference of each variant from the baseline in each tenth of the steps; side by side, so that none is hidden.
function drawAlong(chart, div) {
  const shown = variants.map((_, i) => i).filter((i) => chart.curves[i] && !isOff(i));
  const traces = shown.map((variant, place) => {
    const { x, y, low, high } = chart.curves[variant], { label } = variants[variant];
    const apart = (x[1] - x[0]) * 0.8 / Math.max(3, shown.length) * (place - (shown.length - 1) / 2);
    return {
      type: "scatter", mode: "markers", name: label, x: x.map((one) => one + apart), y,
      marker: { size: 6, color: colours.line[variant], symbol: place % 8 },
      error_y: {
        type: "data", symmetric: false, array: high.map((one, i) => one - y[i]), thickness: 1.5, width: 2,
        arrayminus: low.map((one, i) => y[i] - one), color: colours.line[variant],
      },
      customdata: low.map((one, i) => `${one.toPrecision(3)} to ${high[i].toPrecision(3)}`), meta: [plain(label)],
      hovertemplate: "<b>%{meta[0]}</b><br>around step %{x:.4~r}<br>%{y:.3f} (%{customdata})<extra></extra>",
    };
  });
  const last = shown.map((i) => `${variants[i].label} ${chart.curves[i].y.at(-1)} in the last`);
  div.setAttribute("aria-label", `${chart.title}, in ten parts: ${last.join("; ") || "no values"}.`);
  // An interval of three runs may be far wider than the differences, which say how far the axis goes.
  const most = Math.max(2 * chart.margin, ...shown.flatMap((i) => chart.curves[i].y.map(Math.abs)));
  const band = (y0, y1, line) => ({ type: "rect", xref: "paper", x0: 0, x1: 1, y0, y1, layer: "below", ...line });
  const shapes = [
    band(-chart.margin, chart.margin, { fillcolor: colours.grid, line: { width: 0 } }),
    band(0, 0, { type: "line", line: { width: 1, color: colours.dim } }),
  ];
  return Plotly.react(div, traces, layout(div, 270,
    { title: { text: "step", standoff: 6, font: { size: 12 } }, nticks: 7 },
    { nticks: 6, autorangeoptions: { clipmin: -3 * most, clipmax: 3 * most } },
    { shapes, ...(traces.length ? {} : nothing("no values here")) }), config);
}

// The share of each variant's runs above each score, with its band.
function drawProfiles(div) {
  const bands = [], lines = [], spoken = [];
  profiles.curves.forEach((curve, variant) => {
    if (!curve || isOff(variant)) return;
    const { label, dash } = variants[variant];
    bands.push({
      type: "scatter", name: `${label} band`, mode: "lines", line: { width: 0 }, fill: "toself", hoverinfo: "skip",
      x: [...curve.x, ...curve.x.toReversed()], y: [...curve.high, ...curve.low.toReversed()],
      fillcolor: colours.fill[variant],
    });
    lines.push({
      type: "scatter", mode: "lines", name: label, x: curve.x, y: curve.y, meta: [plain(label)],
      line: { color: colours.line[variant], width: 2.4, dash, shape: "hv" },
      hovertemplate: "<b>%{meta[0]}</b><br>score %{x:.3f}<br>share above %{y:.2f}<extra></extra>",
    });
    spoken.push(`${label} half at ${curve.x[curve.y.findLastIndex((share) => share >= 0.5)] ?? curve.x[0]}`);
  });
  div.setAttribute("aria-label", `${profiles.title}: ${spoken.join("; ") || "no values"}.`);
  const x = { title: { text: "score", standoff: 6, font: { size: 12 } }, nticks: 7 };
  const y = { range: [-0.03, 1.03], tickvals: [0, 0.25, 0.5, 0.75, 1] };
  return Plotly.react(div, [...bands, ...lines], layout(div, 270, x, y, lines.length ? {} : nothing("no values here")),
    config);
}

// A bar for each variant but those whose runs are all off, the first on top.
function drawBars(title, parts, div) {
  const shown = variants.map((_, i) => i).filter((i) => !isOff(i));
  const traces = parts.map(({ name, values, colour, unit }) => ({
    type: "bar", orientation: "h", name: plain(name), y: shown.map((_, i) => i), x: shown.map((i) => values[i] ?? null),
    customdata: shown.map((i) => plain(variants[i].label)), meta: [plain(name)], width: 0.62,
    marker: { color: colour ?? shown.map((i) => colours.line[i]), line: { color: colours.paper, width: 1 } },
    texttemplate: "%{x:.3~g}", textposition: colour ? "inside" : "auto", textangle: 0, cliponaxis: false,
    insidetextanchor: "middle", insidetextfont: { color: shown.map((i) => inkOn(colour ?? colours.line[i])) },
    hovertemplate: `<b>%{customdata}</b><br>%{meta[0]} %{x:.4g} ${unit}<extra></extra>`,
  }));
  const amount = (value, unit) => ((value ?? null) === null ? "not known" : `${Number(value.toPrecision(3))} ${unit}`);
  const spoken = shown.map((i) => (
    `${variants[i].label}: ${parts.map(({ name, values, unit }) => `${name} ${amount(values[i], unit)}`).join(", ")}`));
  div.setAttribute("aria-label", `${title}, a bar for each variant. ${spoken.join("; ")}.`);
  const length = Math.max(12, Math.round(div.clientWidth / 20));
  return Plotly.react(div, traces, layout(div, 66 + 34 * shown.length,
    {
      rangemode: "tozero", nticks: div.clientWidth < 400 ? 4 : 6, tickangle: 0,
      title: { text: parts[0].unit, standoff: 6, font: { size: 12 } },
    },
    {
      tickvals: shown.map((_, i) => i), ticktext: shown.map((i) => plain(short(variants[i].label, length))), ticks: "",
      range: [shown.length - 0.5, -0.5], fixedrange: true, showgrid: false,
    },
    { barmode: "stack", uniformtext: { minsize: 10, mode: "hide" }, margin: { l: 44, r: 30, t: 8, b: 40 } }), config);
}

// The measure against a tuned value: runs, mean and band of each variant on the tuning seeds; fresh seeds on the right.
function drawSensitivity({ key, log, measure, seeds, curves }, div) {
  const traces = [], spoken = [], labels = [];
  curves.forEach(({ label, variant, values, spreads, chosen, best, edge, fresh }, place) => {
    const { dash } = variants[variant], colour = colours.line[variant], at = values.map(Number);
    const base = { type: "scatter", meta: [plain(label), plain(key), plain(measure)], cliponaxis: false };
    const hover = (what) => `<b>%{meta[0]}</b><br>${what}<br>%{meta[1]} %{x:.3g}<br>%{meta[2]} %{y:.4g}<extra></extra>`;
    const points = (spread, x, more) => ({
      ...base, name: `${label} runs`, mode: "markers", x, y: spread.values, opacity: 0.65, ...more,
      marker: { color: colour, size: 6, symbol: spread.failed.map((failed) => (failed ? "x" : "circle")) },
    });
    traces.push({
      ...base, name: `${label} band`, mode: "lines", line: { width: 0 }, fill: "toself", hoverinfo: "skip",
      fillcolor: colours.fill[variant], x: [...at, ...at.toReversed()],
      y: [...spreads.map(({ high }) => high), ...spreads.map(({ low }) => low).toReversed()],
    });
    for (const [i, spread] of spreads.entries()) {
      traces.push(points(spread, spread.values.map(() => at[i]), { hovertemplate: hover("tuning run") }));
    }
    traces.push({
      ...base, name: label, mode: "lines", x: at, y: spreads.map(({ mean }) => mean),
      line: { color: colour, width: 2.4, dash },
      hovertemplate: hover(`mean over tuning seeds ${seeds.join(", ")}`),
    });
    const named = div.clientWidth < 500 ? best : `${label} ${best}`;
    traces.push({
      ...base, name: `${label} chosen`, mode: "markers+text", x: [at[chosen]], y: [spreads[chosen].mean],
      text: [plain(edge ? `${named}: edge of its grid` : named)], textposition: "top center", textfont: { color: colour },
      marker: { color: "rgba(0,0,0,0)", size: 14, line: { color: colour, width: 2.4 } }, hovertemplate: hover("chosen"),
    });
    const found = fresh && `${Number(fresh.mean.toPrecision(3))} on ${fresh.values.length} fresh seeds`;
    const said = found ?? "no fresh seeds yet";
    spoken.push(`${label}: best ${best}${edge ? ", at the edge of its grid" : ""}, ${said}`);
    labels.push(plain(short(label, 10)));
    if (!fresh) return;
    const gap = 0.44 / Math.max(1, fresh.values.length - 1);
    const places = fresh.values.map((_, i) => place + gap * (i - (fresh.values.length - 1) / 2));
    const told = (what) => `<b>%{meta[0]}</b><br>${what}<br>%{meta[2]} %{y:.4g}<extra></extra>`;
    traces.push(points(fresh, places, { xaxis: "x2", hovertemplate: told("fresh seed") }));
    traces.push({
      ...base, name: `${label} fresh`, xaxis: "x2", mode: "markers", x: [place], y: [fresh.mean],
      marker: { color: colour, symbol: "line-ew", size: 22, line: { color: colour, width: 3 } },
      error_y: {
        type: "data", symmetric: false, array: [fresh.high - fresh.mean], arrayminus: [fresh.mean - fresh.low],
        color: colour, thickness: 1.8, width: 0,
      },
      hovertemplate: told("mean of fresh seeds"),
    });
  });
  div.setAttribute("aria-label", `${measure} by ${key}, on tuning seeds and on fresh seeds. ${spoken.join("; ")}.`);
  const share = Math.min(0.4, 0.12 + 0.06 * curves.length);
  const titled = (text) => ({ text: plain(text), standoff: 6, font: { size: 12 } });
  const title = titled(`${key}, tuning seeds ${seeds.join(", ")}`);
  const x = { type: log ? "log" : "linear", domain: [0, 0.98 - share], title, ...(log ? { dtick: 1 } : { nticks: 7 }) };
  const made = layout(div, 330, x, { nticks: 6 });
  made.xaxis2 = {
    ...made.xaxis, type: "linear", domain: [1 - share, 1], title: titled("fresh seeds"), showgrid: false,
    fixedrange: true,
    tickvals: curves.map((_, i) => i), ticktext: labels, range: [-0.6, curves.length - 0.4], ticks: "", tickangle: -30,
  };
  return Plotly.react(div, traces, made, config);
}

const views = new Map();  // chart id to {div, draw}

function addView(grid, { id, title, unit, note, keys }, draw) {
  const div = element("div", { class: "plot", role: "figure", "data-chart": id });
  const heading = element("h3", {}, title);
  if (unit) heading.append(" ", element("span", { class: "unit" }, `(${unit})`));
  const caption = element("figcaption", {}, heading);
  if (note) caption.append(element("p", { class: "note" }, note));
  if (keys) {
    caption.append(element("ul", { class: "keys" }, ...keys.map(({ name, colour }) => {
      const square = element("span", { class: "square", "aria-hidden": "true" });
      square.style.background = colour;
      return element("li", {}, square, name);
    })));
  }
  grid.append(element("figure", { class: "chart" }, caption, div));
  views.set(id, { div, draw: () => draw(div) });
}

function addViews() {
  const [lines, comparing, bars] = [1, 2, 3].map(() => element("div", { class: "grid" }));
  const tuned = element("div", {});
  for (const chart of sensitivity) {
    const note = "A point is a run (a cross: it failed). Line and band: the mean over tuning seeds, and its 95 % "
      + "interval from three seeds on, else lowest to highest. A ring: the value that was chosen. On the right: the "
      + "seeds that the verdict is of, with mean and 95 % interval.";
    const title = `${chart.measure} against ${chart.key}`;
    addView(tuned, { id: `tuning/${chart.key}`, title, note }, (div) => drawSensitivity(chart, div));
  }
  for (const chart of charts) addView(lines, chart, (div) => drawLines(chart, div));
  for (const chart of along) addView(comparing, chart, (div) => drawAlong(chart, div));
  if (reached && Object.keys(reached.stairs).length) addView(comparing, { id: "reached", ...reached }, drawStairs);
  if (profiles) addView(comparing, { id: "profiles", ...profiles }, drawProfiles);
  const known = (values) => values?.some((value) => value !== null);
  if (phases?.seconds?.some(known)) {
    const title = "Seconds per step by phase";
    const parts = phases.names.map((name, i) => (
      { name, values: phases.seconds[i], colour: PHASE_COLOURS[i % PHASE_COLOURS.length], unit: "s" }));
    addView(bars, { id: "phases", title, keys: parts }, (div) => drawBars(title, parts, div));
  }
  for (const { label, gib } of memory.filter((part) => known(part.gib))) {
    const title = label[0].toUpperCase() + label.slice(1);
    const part = { name: label, values: gib, unit: "GiB" };
    addView(bars, { id: `memory/${label}`, title }, (div) => drawBars(title, [part], div));
  }
  find(".views").append(...[tuned, lines, comparing, bars].filter((grid) => grid.childElementCount));
}

let latest = 0, settled = Promise.resolve();

// All charts in one go. So is the first drawing, which comes before the page's load event: a program that makes a
// picture or a PDF of the page at that event finds every chart in it, wherever the chart stands.
function drawAll() {
  latest++;  // ends a drawing under way
  colours = look();
  settled = Promise.all([...views.values()].map(({ draw }) => draw()));
}

// Charts are drawn one after another, with room between for what the reader does next; a newer drawing ends an older.
function redraw() {
  const mine = ++latest;
  const own = (async () => {
    await new Promise(requestAnimationFrame);
    if (mine === latest) colours = look();
    for (const { draw } of views.values()) {
      // Printing ends a drawing and begins none: then there is no newer one to wait for.
      if (mine !== latest) return settled === own ? undefined : settled;
      await draw();
      await new Promise((resume) => setTimeout(resume));
    }
    return undefined;
  })();
  settled = own;
}

// ---- Controls

function swatch(variant) {
  const { dash } = variants[variant];
  const dashes = { solid: "none", dash: "7 4", dot: "2 3", dashdot: "8 3 2 3", longdash: "12 4" };
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "swatch");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const looks = { x1: 0, x2: 36, y1: 6, y2: 6, "stroke-width": 3, "stroke-dasharray": dashes[dash] ?? "none" };
  for (const [name, value] of Object.entries(looks)) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}

function paintSwatches() {
  const { line } = look();
  document.querySelectorAll(".swatch line").forEach((one, i) => one.setAttribute("stroke", line[i]));
}

const narrow = () => matchMedia("(max-width: 640px)").matches;

function variantControl({ label }, variant) {
  const mine = runs.map((_, i) => i).filter((i) => runs[i].variant === variant);
  const whole = element("input", { type: "checkbox", "data-variant": variant, disabled: !mine.length });
  const boxes = mine.map((i) => element("input", { type: "checkbox", "data-run": runs[i].name }));
  const count = element("summary");
  const show = () => {
    const on = mine.filter((i) => state.on[i]).length;
    mine.forEach((i, place) => { boxes[place].checked = state.on[i]; });
    whole.checked = on > 0;
    whole.indeterminate = on > 0 && on < mine.length;
    count.textContent = `${on} of ${mine.length} ${mine.length === 1 ? "run" : "runs"}`;
  };
  const change = (which, on) => {
    for (const i of which) state.on[i] = on;
    show();
    redraw();
  };
  // From "some" a click leads to all, as the browser's own indeterminate boxes do.
  whole.addEventListener("change", () => change(mine, whole.checked || mine.some((i) => !state.on[i])));
  boxes.forEach((box, place) => box.addEventListener("change", () => change([mine[place]], box.checked)));
  show();
  const list = mine.map((i, place) => {
    const { name, seed, state: end } = runs[i];
    const row = element("label", { title: name }, boxes[place], element("bdi", { class: "run" }, seedOf(runs[i])));
    if (end !== "finished") row.append(element("span", { class: "run" }, `(${end})`));
    if (seed !== null && seed !== undefined) row.append(element("bdi", { class: "name" }, name));
    return row;
  });
  const parts = element("details", { open: runs.length <= 12 && !narrow() }, count, ...list);
  return element("div", { class: "variant" },
    element("label", {}, whole, swatch(variant), element("bdi", { class: "label" }, label)), mine.length ? parts : "");
}

function addControls() {
  for (const [key, label] of Object.entries(axes)) {
    const radio = element("input", { type: "radio", name: "axis", value: key, checked: key === state.axis });
    radio.addEventListener("change", () => { state.axis = key; redraw(); });
    find("#axes").append(element("label", {}, radio, label));
  }
  const slider = find("#smoothing"), output = find("#window");
  const say = () => {
    output.textContent = state.window === 1 ? "off" : `mean of ${state.window} points`;
    slider.setAttribute("aria-valuetext", output.textContent);
  };
  slider.value = state.window;
  slider.addEventListener("input", () => { state.window = Number(slider.value); say(); redraw(); });
  say();
  for (const name of ["mean", "seeds", "log"]) {
    const box = find(`#${name}`);
    box.checked = state[name];
    box.addEventListener("change", () => { state[name] = box.checked; redraw(); });
  }
  find("#variants").append(...variants.map(variantControl));
  find(".controls").addEventListener("submit", (event) => event.preventDefault());
}

// ---- Tables and commands

// What a cell sorts by, number or text; null where it is missing.
function sortKey(cell, numeric) {
  const value = cell.dataset.value ?? null;
  return value === null || !numeric ? value : Number(value);
}

function sortBy(table, header, place) {
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const numeric = header.classList.contains("number");
  const compare = numeric ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
  const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: sortKey(row.cells[place], numeric) }));
  rows.sort((a, b) => {
    if (a.key === null || b.key === null) return (a.key === null) - (b.key === null);
    return descending ? compare(b.key, a.key) : compare(a.key, b.key);
  });
  table.tBodies[0].append(...rows.map(({ row }) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  if (table.tBodies[0].rows.length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((header, place) => {
    const button = element("button", { type: "button" }, ...header.childNodes);
    button.addEventListener("click", () => sortBy(table, header, place));
    header.append(button);
  });
}

for (const button of navigator.clipboard?.writeText ? document.querySelectorAll("button.copy") : []) {
  const pre = find("pre", button.parentElement);
  button.hidden = false;
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(pre.textContent);
      button.textContent = "Copied";
    } catch {
      // The browser asked and was refused: the reader copies what is selected.
      getSelection().selectAllChildren(pre);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

// ---- Start, other schemes and sizes, paper

if (!find("#charts").hidden) {
  find(".workbench").hidden = false;
  addViews();
  addControls();
  paintSwatches();
  drawAll();
  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if (width && contentRect.width !== width) redraw();
    width = contentRect.width;
  }).observe(find(".views"));
  const repaint = () => { paintSwatches(); redraw(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  // What is closed opens, but for the list of runs: paper has no boxes to tick, and 60 runs would fill three sheets.
  let closed = [], lists = [];
  const tables = [...document.querySelectorAll(".scroll > table")];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")].filter((one) => !one.closest(".variant"));
    lists = [...document.querySelectorAll(".variant details[open]")];
    for (const one of closed) one.open = true;
    for (const one of lists) one.open = false;
    document.documentElement.dataset.printing = "";
    // A sheet does not scroll, so that a wide table gets smaller.
    for (const table of tables) {
      const room = table.parentElement.clientWidth / table.scrollWidth;
      if (room < 1) table.style.zoom = room;
    }
    paintSwatches();
    drawAll();
  });
  addEventListener("afterprint", () => {
    for (const one of closed) one.open = false;
    for (const one of lists) one.open = true;
    for (const table of tables) table.style.zoom = "";
    delete document.documentElement.dataset.printing;
    repaint();
  });
}

// ---- A page that is written again while runs go on: its age, and loading it again

const age = find("#age");
if (age) {
  const box = find("input", age), opened = Date.now(), seconds = Number(age.dataset.seconds);
  const kept = (value) => {  // some browsers have no storage for pages from a disk
    try { return value === undefined ? sessionStorage.getItem("reload") : sessionStorage.setItem("reload", value); }
    catch { return null; }
  };
  box.checked = kept() !== "off";
  box.addEventListener("change", () => kept(box.checked ? "on" : "off"));
  setInterval(() => {
    const old = Math.max(0, Math.round(Date.now() / 1000 - Number(age.dataset.written)));
    find("output", age).textContent = old < 120 ? `, ${old} s ago` : `, ${Math.round(old / 60)} minutes ago`;
    if (box.checked && !document.hidden && Date.now() - opened > 1000 * seconds) location.reload();
  }, 1000);
}

// For tests, and for whoever wants the numbers of a chart as it is drawn.
window.report = {
  state,
  settled: () => settled,
  visibleTraces: (id) => views.get(id).div.data.filter((trace) => trace.visible !== false).map((trace) => trace.name),
  trace: (id, name) => {
    const { x, y } = views.get(id).div.data.find((trace) => trace.name === name);
    return { x: [...x], y: [...y] };
  },
};
})();
