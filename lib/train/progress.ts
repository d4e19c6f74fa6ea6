/** The progress line on standard error: loss, steps per second, time left, memory. */
import { log } from "../config.ts";

/** "1 h 02 min", "3 min 20 s", "12 s". */
export function duration(seconds: number): string {
  const s = Math.round(seconds);
  if (s >= 3600) return `${Math.floor(s / 3600)} h ${String(Math.floor(s % 3600 / 60)).padStart(2, "0")} min`;
  return s >= 60 ? `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, "0")} s` : `${s} s`;
}

/** Shows at most one line a second; the time left follows from the median of the last 50 steps. */
export class Progress {
  #seconds: number[] = [];
  #shown = 0;

  constructor(readonly steps: number, readonly start: number) {}

  show(metric: { step: number; loss: number; seconds: number }, bytes: number): void {
    this.#seconds = [...this.#seconds, metric.seconds].slice(-50);
    const now = performance.now();
    if (metric.step < this.steps && now - this.#shown < 1000) return;
    this.#shown = now;
    const median = [...this.#seconds].sort((a, b) => a - b)[this.#seconds.length >> 1];
    log(
      `step ${metric.step}/${this.steps}  loss ${metric.loss.toFixed(4)}  ${
        (1 / median).toFixed(2)
      } steps/s  ` +
        `${duration((this.steps - metric.step) * median)} left  ${(bytes / 2 ** 30).toFixed(2)} GiB`,
    );
  }
}
