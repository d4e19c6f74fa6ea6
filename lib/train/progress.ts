/** The progress line on standard error: loss, steps per second, time left, memory. */
import { log } from "../config.ts";

/** "1 h 02 min", "3 min 20 s", "12 s". */
export function duration(seconds: number): string {
  const s = Math.round(seconds);
  if (s >= 3600) return `${Math.floor(s / 3600)} h ${String(Math.floor(s % 3600 / 60)).padStart(2, "0")} min`;
  return s >= 60 ? `${Math.floor(s / 60)} min ${String(s % 60).padStart(2, "0")} s` : `${s} s`;
}

/** Shows at most one line a second; the time left follows from the last 50 steps, waiting for data included. */
export class Progress {
  /** When the last steps ended, in ms. */
  #ends: number[] = [];
  #shown = 0;

  constructor(readonly steps: number) {}

  show(metric: { step: number; loss: number; seconds: number }, bytes: number): void {
    const now = performance.now();
    this.#ends = [...this.#ends, now].slice(-51);
    if (metric.step < this.steps && now - this.#shown < 1000) return;
    this.#shown = now;
    const count = this.#ends.length - 1;
    const seconds = count ? (now - this.#ends[0]) / 1000 / count : metric.seconds;
    log(
      `step ${metric.step}/${this.steps}  loss ${metric.loss.toFixed(4)}  ${
        (1 / seconds).toFixed(2)
      } steps/s  ` +
        `${duration((this.steps - metric.step) * seconds)} left  ${(bytes / 2 ** 30).toFixed(2)} GiB`,
    );
  }
}

/** Where a list of cases stands, and its time left by the mean of those done. */
export class Countdown {
  readonly #began = performance.now();
  #shown = -Infinity;

  constructor(readonly total: number) {}

  /** "3/10, 20 s left"; `more` goes between. */
  at(done: number, more = ""): string {
    const seconds = (performance.now() - this.#began) / 1000 / done;
    return `${done}/${this.total}${more}, ${duration((this.total - done) * seconds)} left`;
  }

  /** Logs that with a word before it, at most once in `every` ms, and at the end. */
  show(word: string, done: number, every = 1000): void {
    if (done < this.total && performance.now() - this.#shown < every) return;
    this.#shown = performance.now();
    log(`${word} ${this.at(done)}`);
  }
}
