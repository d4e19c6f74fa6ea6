/** What steps need, prepared while the steps before them compute. */
import type { Views } from "./images.ts";

/** What a step takes; `views` are freed with the next. */
export interface Prepared {
  readonly views?: Views;
}

/** Something that is being prepared; `made` when it is. */
interface Coming<T> {
  all: Promise<T>;
  made?: T;
}

/** Prepares what steps take, one after the other, in order, `count` ahead of the caller. Close it when done. */
export class Ahead<T extends Prepared> {
  readonly #queue: Coming<T>[] = [];
  #last: Promise<unknown> = Promise.resolve();
  #given?: T;
  #closed = false;
  #waited = 0;

  /**
   * @param make what step `step` takes
   * @param step the first
   * @param end where to stop preparing
   */
  constructor(
    readonly make: (step: number) => Promise<T>,
    private step: number,
    readonly end = Infinity,
    readonly count = 2,
  ) {}

  /** Seconds that the caller has waited so far. */
  get waited(): number {
    return this.#waited;
  }

  /** What the next step takes; that of the one before is done with. @throws what making it threw */
  async next(): Promise<T> {
    if (this.#closed) throw new Error("what is prepared ahead: it is closed");
    const began = performance.now();
    while (this.#queue.length <= this.count && this.step < this.end) this.#prepare(this.step++);
    this.#free(this.#given);
    try {
      return this.#given = await this.#queue.shift()!.all;
    } finally {
      this.#waited += (performance.now() - began) / 1000;
    }
  }

  /** While a step computes: sends what the next one needs to the device, if it is ready by now. */
  send(): void {
    this.#queue[0]?.made?.views?.send();
  }

  /** Ends preparation and frees what nobody took, all of which has been made when this returns. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#free(this.#given);
    await Promise.allSettled(this.#queue.map(({ all }) => all.then((made) => this.#free(made))));
  }

  #free(made?: T): void {
    made?.views?.[Symbol.dispose]();
  }

  #prepare(step: number): void {
    const all = this.#last.then(() => this.make(step));
    const entry: Coming<T> = { all };
    all.then((made) => entry.made = made, () => {}); // an error is reported when the caller comes to this step
    this.#last = all;
    this.#queue.push(entry);
  }
}
