/** The page of a training run: what was trained, how the loss fell, what the network saw. */
import * as Plot from "@observablehq/plot";
import { svg } from "./figure.ts";
import { escape, figures, htmlPage, image, section, table, tiles } from "./html.ts";

/** One line of `metrics.jsonl`; every further number is a named term of the loss. */
export interface StepMetrics {
  step: number;
  loss: number;
  lr: number;
  /** Seconds of this step alone. */
  seconds: number;
  [term: string]: number;
}

/** A PNG file and its caption. */
interface Picture {
  name: string;
  png: Uint8Array;
}

/** What a run's report is made of. */
export interface RunReport {
  config: Record<string, unknown>;
  metrics: readonly StepMetrics[];
  crops: Picture[];
  /** What the encoder has learned, and how to read it. */
  features?: { explanation: string; pictures: Picture[] };
  summary: Record<string, unknown>;
}

/** Points that a curve is drawn with; longer runs are averaged down to it. */
const POINTS = 600;

interface Point {
  step: number;
  value: number;
  smooth: number;
}

/** The curve of `key`: means over equal spans of steps, and their centred mean over 4 % of the run. */
function curve(metrics: readonly StepMetrics[], key: (row: StepMetrics) => number): Point[] {
  const rows = metrics.filter((row) => Number.isFinite(key(row)));
  const span = Math.max(1, Math.ceil(rows.length / POINTS));
  const points: Point[] = [];
  for (let at = 0; at < rows.length; at += span) {
    const part = rows.slice(at, at + span);
    const value = part.reduce((sum, row) => sum + key(row), 0) / part.length;
    points.push({ step: part[part.length - 1].step, value, smooth: value });
  }
  const reach = Math.floor(points.length * 0.02);
  points.forEach((point, i) => {
    const side = Math.min(reach, i, points.length - 1 - i);
    const near = points.slice(i - side, i + side + 1);
    point.smooth = near.reduce((sum, p) => sum + p.value, 0) / near.length;
  });
  return points;
}

/** The label of a tick: small numbers as powers of ten. */
function short(value: number): string {
  const rounded = Number(value.toPrecision(6));
  return value !== 0 && Math.abs(value) < 1e-3
    ? rounded.toExponential()
    : rounded.toLocaleString("en", { maximumFractionDigits: 6 });
}

function draw(points: Point[], label: string, colour: string, smooth: boolean, zero = false): string {
  const faint = smooth ? 0.3 : 1;
  return svg({
    width: 640,
    height: 300,
    marginLeft: 64,
    marginBottom: 42,
    style: { fontSize: "12px" },
    x: {
      label: "step",
      tickFormat: (step: number) => Number.isInteger(step) ? step.toLocaleString("en") : "",
    },
    y: { label, grid: true, zero, nice: true, ticks: 5, tickFormat: (value: number) => short(value) },
    marks: [
      Plot.line(points, {
        x: "step",
        y: "value",
        stroke: colour,
        strokeOpacity: faint,
        strokeWidth: smooth ? 1 : 1.75,
      }),
      ...(smooth ? [Plot.line(points, { x: "step", y: "smooth", stroke: colour, strokeWidth: 2 })] : []),
      ...(points.length === 1 ? [Plot.dot(points, { x: "step", y: "value", fill: colour })] : []),
    ],
  });
}

/** A value as a short text: numbers to five digits, lists and objects as JSON. */
function show(value: unknown): string {
  if (typeof value === "number") {
    return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(5)));
  }
  return typeof value === "string" ? value : JSON.stringify(value) ?? "";
}

/** Rows [name, value] of a nested configuration, names joined by dots. */
function flatten(config: Record<string, unknown>, prefix = ""): [string, string][] {
  return Object.entries(config).flatMap(([name, value]): [string, string][] => {
    if (value === undefined) return [];
    const nested = typeof value === "object" && value !== null && !Array.isArray(value);
    if (nested) return flatten(value as Record<string, unknown>, `${prefix}${name}.`);
    return [[prefix + name, typeof value === "number" ? String(value) : show(value)]];
  });
}

/**
 * A self-contained HTML page: loss and every named term, learning rate and speed over the steps as inline SVG, pictures
 * as data URIs, the summary and the configuration. Works without scripts and without a network.
 */
export function runReport({ config, metrics, crops, features, summary }: RunReport): string {
  const names = new Set(metrics.flatMap((row) => Object.keys(row)));
  const terms = [...names].filter((name) => !["step", "loss", "lr", "seconds"].includes(name));
  const plot = (
    caption: string,
    label: string,
    colour: string,
    smooth: boolean,
    key: (row: StepMetrics) => number,
    zero = false,
  ) => {
    const points = curve(metrics, key);
    return points.length ? [{ content: draw(points, label, colour, smooth, zero), caption }] : [];
  };
  const loss = [
    ...plot(
      "Loss: mean of each span of steps (faint) and the mean over 4 % of the run",
      "loss",
      "#2563eb",
      true,
      (r) => r.loss,
    ),
    ...terms.flatMap((term) =>
      plot(
        term === "gradient_norm" ? "Norm of the gradient before clipping" : `Term: ${term}`,
        term,
        "#0f8a6c",
        true,
        (r) => r[term],
      )
    ),
  ];
  const pace = [
    ...plot("Learning rate", "learning rate", "#b45309", false, (r) => r.lr, true),
    ...plot("Speed", "steps per second", "#7c3aed", true, (r) => 1 / r.seconds, true),
  ];
  const captioned = (pictures: Picture[]) =>
    figures(pictures.map(({ name, png }) => ({ content: image(png, name), caption: name })));
  const last = metrics.at(-1);
  const title = [config.method, config.arch].filter((part) => typeof part === "string").join(" on ") || "run";
  const lead = last
    ? `${show(last.step)} steps; loss ${show(metrics[0].loss)} at the first, ${show(last.loss)} at the last.`
    : "No step has been taken yet.";
  return htmlPage(`Training: ${title}`, lead, [
    tiles(
      flatten(summary).map((
        [name, text],
      ) => [name.replaceAll("_", " "), Number.isNaN(Number(text)) ? text : show(Number(text))]),
    ),
    section("Loss", figures(loss)),
    section("Learning rate and speed", figures(pace)),
    section("What the network sees", captioned(crops)),
    section(
      "What the encoder has learned",
      features ? `<p>${escape(features.explanation)}</p>${captioned(features.pictures)}` : "",
    ),
    section("Configuration", table(["setting", "value"], flatten(config))),
  ]);
}
