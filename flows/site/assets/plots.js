// Draws the figures of plots.html with plotly, in the page's colours; drawn again when those change.
"use strict";

const figures = JSON.parse(document.getElementById("drawings").textContent);
const picker = document.getElementById("panel");
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const narrow = window.matchMedia("(max-width: 40rem)");

// plotly reads names as HTML of its own: what comes from data is text.
const asText = (text) =>
  String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

const colour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const palette = () => [1, 2, 3, 4, 5, 6].map((number) => colour(`plot-${number}`));

const wrapped = (text, width) => {
  const lines = [""];
  for (const word of String(text).split(" ")) {
    const line = lines[lines.length - 1];
    if (line && line.length + word.length >= width) lines.push(word);
    else lines[lines.length - 1] = line ? `${line} ${word}` : word;
  }
  return lines.slice(0, 3).map(asText).join("<br>");
};

function frame() {
  const line = colour("line");
  const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    colorway: palette(),
    font: { color: colour("ink"), family: getComputedStyle(document.body).fontFamily, size: 13 },
    margin: { l: 8, r: 12, t: 8, b: 8 },
    xaxis: { ...axis, fixedrange: true },
    yaxis: { ...axis, fixedrange: true },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: 12 } },
    hoverlabel: { bgcolor: colour("card"), bordercolor: line, font: { color: colour("ink") } },
    hovermode: "closest",
  };
}

const draw = {
  lines(figure) {
    const layout = frame();
    layout.yaxis.ticksuffix = figure.unit;
    layout.yaxis.rangemode = "tozero";
    layout.xaxis.nticks = narrow.matches ? 4 : 10;
    layout.height = narrow.matches ? 430 : 400;
    const traces = figure.series.map((series) => ({
      type: "scatter",
      mode: "lines+markers",
      name: wrapped(series.name, 44),
      x: figure.x,
      y: series.y,
      text: series.text,
      hovertemplate: `%{x|%Y-%m-%d}: %{text}<extra>${wrapped(series.name, 30)}</extra>`,
      line: { width: 2.5, shape: "linear" },
      marker: { size: 5 },
    }));
    return [traces, layout];
  },

  bars(figure) {
    const layout = frame();
    const bars = figure.x.length * figure.series.length;
    layout.height = 100 + 30 * bars;
    layout.xaxis.ticksuffix = figure.unit;
    layout.xaxis.rangemode = "tozero";
    layout.xaxis.nticks = 6;
    layout.yaxis.showgrid = false;
    layout.bargap = 0.28;
    layout.showlegend = figure.series.length > 1;
    layout.legend.traceorder = "reversed";
    const colours = palette();
    const traces = figure.series.map((series, number) => ({
      type: "bar",
      orientation: "h",
      name: asText(series.name),
      y: figure.x.map((name) => wrapped(name, narrow.matches ? 20 : 40)),
      x: series.y,
      text: series.text,
      textposition: "auto",
      cliponaxis: false,
      hovertemplate: `%{text}<extra>${asText(series.name)}</extra>`,
      marker: { color: number === figure.series.length - 1 ? colours[0] : colours[5] },
    }));
    return [traces, layout];
  },

  stack(figure) {
    const layout = frame();
    layout.barmode = "stack";
    layout.height = 340;
    layout.bargap = 0.3;
    layout.xaxis.type = "category";
    layout.xaxis.nticks = narrow.matches ? 3 : 8;
    layout.xaxis.range = [-0.6, Math.max(figure.x.length, 6) - 0.4];
    layout.yaxis.rangemode = "tozero";
    layout.yaxis.tickformat = ",d";
    const colours = ["plot-6", "plot-2", "plot-5"].map(colour);
    const traces = figure.series.map((series, number) => ({
      type: "bar",
      name: asText(series.name),
      x: figure.x,
      y: series.y,
      text: series.text,
      textposition: "none",
      hovertemplate: `%{x}: %{text}<extra>${asText(series.name)}</extra>`,
      marker: { color: colours[number] },
    }));
    return [traces, layout];
  },

  calendar(figure) {
    const layout = frame();
    const colours = ["passed", "plot-2", "plot-4", "failed", "unknown-soft"].map(colour);
    const steps = figure.kinds.flatMap((_, number) => [
      [number / figure.kinds.length, colours[number]],
      [(number + 1) / figure.kinds.length, colours[number]],
    ]);
    layout.height = 120 + 17 * Math.max(figure.y.length, 6);
    layout.xaxis.type = "category";
    layout.xaxis.nticks = narrow.matches ? 3 : 10;
    layout.xaxis.showgrid = false;
    layout.yaxis.type = "category";
    layout.yaxis.showgrid = false;
    layout.yaxis.dtick = 1;
    layout.yaxis.tickfont = { size: 10 };
    const heatmap = {
      type: "heatmap",
      x: figure.x,
      y: figure.y,
      z: figure.cells,
      zmin: -0.5,
      zmax: figure.kinds.length - 0.5,
      text: figure.cells.map((row) => row.map((kind) => figure.kinds[kind])),
      hovertemplate: "%{y}, week of %{x}: %{text}<extra></extra>",
      colorscale: steps,
      showscale: false,
      xgap: 2,
      ygap: 2,
    };
    const keys = figure.kinds.map((kind, number) => ({
      type: "scatter",
      mode: "markers",
      name: kind,
      x: [null],
      y: [null],
      marker: { symbol: "square", size: 11, color: colours[number] },
    }));
    return [[heatmap, ...keys], layout];
  },
};

const settings = { responsive: true, displayModeBar: false, displaylogo: false };

function drawVisible() {
  for (const figure of figures) {
    const place = document.getElementById(figure.key);
    if (place.closest("[hidden]")) continue;
    const [traces, layout] = draw[figure.kind](figure);
    Plotly.react(place, traces, layout, settings);
  }
}

function show() {
  for (const panel of document.querySelectorAll("[data-panel]")) {
    panel.hidden = picker !== null && panel.dataset.panel !== picker.value;
  }
  drawVisible();
}

picker?.addEventListener("change", show);
dark.addEventListener("change", drawVisible);
narrow.addEventListener("change", drawVisible);
show();
