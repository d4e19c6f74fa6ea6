/**
 * Ways of computing on a GPU that are off until `deno task gpu-check` has shown, on that card and with these kernels, that they are
 * right and faster. What it has shown is kept beside the compiled kernels, and taken by every run after it.
 */
import { join } from "@std/path";
import { log } from "../config.ts";
import { native } from "../native/library.ts";
import type { Row } from "./table.ts";

/** A way, the networks that it may serve, and how it is turned on or off: 0 where the GPU lacks it. */
export interface Way {
  name: string;
  kind: "cnn" | "token" | "any";
  turn(on: boolean): number;
}

export const WAYS: readonly Way[] = [
  { name: "wgmma", kind: "cnn", turn: (on) => native().vx_conv3d_stacked(on) },
  { name: "norm on load", kind: "cnn", turn: (on) => (native().vx_norm_on_load(on), 1) },
  { name: "cuBLASLt", kind: "token", turn: (on) => native().vx_device_products(on) },
  { name: "graphs", kind: "any", turn: (on) => (native().vx_device_graphs(on), 1) },
];

/** Stages of which every row must be right, and none skipped. */
const JUDGES = ["fragments", "parity", "truth"];
/** Losses of the same steps may differ by this share; a way has to save that of the time. */
const SAME = 5e-3, SAVED = 0.02;

/** The rows of `step` that the check writes, as far as they matter here. */
interface Timed {
  variant: string;
  kind: string;
  ok?: boolean;
  work: string;
  seconds: number;
  losses: number[];
}

/**
 * Of each kind of network the one way whose steps were the fastest, if they were right: ways are kept as they were tried, one at a
 * time. Graphs, which change every kind, are kept where they are the best of all kinds that were timed.
 */
export function shown(rows: readonly Row[]): string[] {
  const judged = rows.filter(({ stage }) => JUDGES.includes(stage));
  const wrong = judged.some((row) => row.ok === false || typeof row.error === "string" || "skipped" in row);
  if (wrong || JUDGES.some((stage) => judged.every((row) => row.stage !== stage))) return [];
  const timed = rows.filter((row) => row.stage === "step" && "variant" in row).map((row) => ({
    ...row as unknown as Timed,
    work: [row.method, row.arch, row.patch, row.batch].join(" "),
  }));
  /** How many times as fast steps of a kind are, the geometric mean; 0 where one failed or gave other losses. */
  const gain = (way: string, kind: string) => {
    const of = timed.filter((row) => row.variant === way && row.kind === kind);
    const ratios = of.map((row) => {
      const plain = timed.find((other) => other.variant === "plain" && other.work === row.work);
      if (row.ok === false || !plain || plain.ok === false) return 0;
      const same = row.losses.every((loss, i) => Math.abs(loss / plain.losses[i] - 1) <= SAME);
      return same ? plain.seconds / row.seconds : 0;
    });
    return ratios.length
      ? Math.exp(ratios.reduce((sum, ratio) => sum + Math.log(ratio), 0) / ratios.length)
      : 0;
  };
  const best = [...new Set(timed.map(({ kind }) => kind))].map((kind) =>
    WAYS.filter((way) => way.kind === "any" || way.kind === kind)
      .map(({ name }) => ({ name, gain: gain(name, kind) }))
      .reduce((a, b) => b.gain > a.gain ? b : a, { name: "", gain: 1 / (1 - SAVED) }).name
  );
  const names = [...new Set(best)].filter((name) =>
    name && (name !== "graphs" || best.every((b) => b === name))
  );
  return WAYS.map(({ name }) => name).filter((name) => names.includes(name));
}

/** What a check leaves for the runs after it. */
interface Kept {
  date: string;
  /** Of the text of the kernels. */
  kernels: number;
  ways: string[];
}

const fileOf = (folder: string, card: string) => join(folder, `${card.replaceAll(/\W+/g, "-")}.json`);

/** Keeps what the rows of a check show of a card. A folder that cannot be written costs a line in the log. */
export function keepWays(folder: string, card: string, rows: readonly Row[]): void {
  const file = fileOf(folder, card);
  const kept: Kept = {
    date: new Date().toISOString().slice(0, 10),
    kernels: native().vx_kernels_text(),
    ways: shown(rows),
  };
  try {
    Deno.mkdirSync(folder, { recursive: true });
    Deno.writeTextFileSync(`${file}.partial`, JSON.stringify(kept) + "\n");
    Deno.renameSync(`${file}.partial`, file);
    log(
      `gpu-check: from now on ${card} computes ${
        kept.ways.length ? `with ${kept.ways.join(", ")}` : "as it is"
      }: ${file}`,
    );
  } catch (error) {
    log(
      `gpu-check: what it showed is not kept: ${
        (error as Error).message
      }; --kernels names a folder that can be written`,
    );
  }
}

/** Turns on what a check has shown of the card in use. @returns what is on, and when it was checked; undefined without a check */
export function useWays(folder: string, card: string): { date: string; ways: string[] } | undefined {
  const file = fileOf(folder, card);
  let kept: Kept;
  try {
    kept = JSON.parse(Deno.readTextFileSync(file));
    if (typeof kept.date !== "string" || !kept.ways.every((name) => WAYS.some((way) => way.name === name))) {
      throw new Error();
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) {
      log(`${file} cannot be used; deno task gpu-check makes it again`);
    }
    return undefined;
  }
  if (kept.kernels !== native().vx_kernels_text()) {
    log(`${file} is of other kernels; deno task gpu-check makes it again`);
    return undefined;
  }
  const on = WAYS.filter(({ name, turn }) => kept.ways.includes(name) && turn(true));
  return { date: kept.date, ways: on.map(({ name }) => name) };
}
