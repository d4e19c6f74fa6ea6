/**
 * A tape that knows no op. An op computes its output and records how the gradient of that output becomes gradients
 * of its inputs; `backward` plays the records in reverse.
 */
import { native } from "./native/library.ts";
import { alone, Tensor } from "./tensor.ts";

/** Gradients of the inputs, in their order; null where none is needed. Receives the gradient of the output. */
export type Gradient = (dy: Tensor) => (Tensor | null)[];

interface Entry {
  output: Tensor;
  inputs: (Tensor | null)[];
  gradient: Gradient;
}

let active: Tape | undefined;

/** Records ops between its making and `backward`; `Tape.none` runs ops without recording (teacher, inference). */
export class Tape {
  #entries: Entry[] = [];
  #needed = new Set<Tensor>();
  #recomputes = false;

  /**
   * Runs `body` and records its ops. `leaves`: tensors whose gradient is wanted (parameters); `recomputes`: what
   * `recompute` marks is not kept.
   */
  static record<T>(leaves: Iterable<Tensor>, body: () => T, recomputes = false): { tape: Tape; result: T } {
    const tape = new Tape();
    tape.#recomputes = recomputes;
    for (const leaf of leaves) tape.#needed.add(leaf);
    const before = active;
    active = tape;
    try {
      return { tape, result: body() };
    } finally {
      active = before;
    }
  }

  /** Runs `body` with no recording. */
  static none<T>(body: () => T): T {
    const before = active;
    active = undefined;
    try {
      return body();
    } finally {
      active = before;
    }
  }

  /** See `recompute`. */
  static recompute(body: () => Tensor): Tensor {
    const outer = active;
    if (!outer) return alone(body);
    if (!outer.#recomputes) return body();
    const probe = new Tape(); // sees what the body reads
    probe.#needed = new Set(outer.#needed);
    active = probe;
    let output: Tensor;
    try {
      output = alone(body);
    } finally {
      active = outer;
    }
    const inputs = new Set(probe.#entries.flatMap((entry) => entry.inputs));
    const read = [...inputs].filter((input) => input !== null && outer.#needed.has(input)) as Tensor[];
    return record(output, read, (dy) => {
      const { tape, result } = Tape.record(read, body);
      const gradients = tape.backward(result, [], dy);
      result[Symbol.dispose]();
      return read.map((input) => gradients.get(input) ?? null);
    });
  }

  /** See `settle`. */
  static settle<T extends { loss: Tensor }>(body: () => T): T {
    const outer = active;
    if (!outer) return body();
    const { result, gradients } = alone(() => {
      const tape = new Tape();
      tape.#needed = new Set(outer.#needed);
      tape.#recomputes = outer.#recomputes;
      active = tape;
      try {
        const result = body();
        return { result, gradients: tape.backward(result.loss, Object.values(result)) };
      } finally {
        active = outer;
      }
    }, ({ result, gradients }) => [...Object.values(result), ...gradients.values()]);
    outer.add({
      output: result.loss,
      inputs: [...gradients.keys()],
      gradient: () => [...gradients.values()],
    });
    return result;
  }

  add(entry: Entry): void {
    if (!entry.inputs.some((i) => i && this.#needed.has(i))) return;
    this.#needed.add(entry.output);
    this.#entries.push(entry);
  }

  needs(tensor: Tensor | null): boolean {
    return tensor !== null && this.#needed.has(tensor);
  }

  /**
   * Gradients of the leaves for the scalar `loss` (d loss = 1). Leaves that the loss does not reach are absent.
   * @param keep what is read after the backward pass. With it, every other recorded output, and every gradient that
   *   is not a leaf's, is freed as soon as its last reader has run: memory falls while the tape plays.
   * @param start gradient of `loss`, which then need not be a scalar
   */
  backward(loss: Tensor, keep?: Iterable<Tensor>, start?: Tensor): Map<Tensor, Tensor> {
    if (!start && loss.length !== 1) throw new Error("backward starts from a scalar");
    const kept = keep && new Set([...keep, loss]);
    const gradients = new Map<Tensor, Tensor>([[loss, start ?? Tensor.full(1, 1, 1)]]);
    const held = new Set(gradients.values());
    for (let entry = this.#entries.pop(); entry; entry = this.#entries.pop()) {
      const { output, inputs, gradient } = entry;
      const dy = gradients.get(output);
      if (dy) {
        gradients.delete(output);
        held.delete(dy);
        const parts = Tape.none(() => gradient(dy));
        inputs.forEach((input, i) => {
          const part = parts[i];
          if (!input || !part || !this.#needed.has(input)) return;
          const sum = gradients.get(input);
          if (sum) return native().vx_add_into(sum.handle, part.handle, sum.length);
          const own = held.has(part) ? part.clone() : part;
          gradients.set(input, own);
          held.add(own);
        });
        for (const part of new Set([dy, ...parts])) if (part && !held.has(part)) part[Symbol.dispose]();
      }
      if (kept && !kept.has(output)) output[Symbol.dispose]();
    }
    gradients.delete(loss);
    return gradients;
  }
}

/**
 * The tensor that `body` makes. On a tape that recomputes, nothing else made inside is kept: the gradient runs `body`
 * again (Chen et al. 2016, "Training deep nets with sublinear memory cost"), so it must do the same each time.
 */
export function recompute(body: () => Tensor): Tensor {
  return Tape.recompute(body);
}

/**
 * A summand of the loss (`loss`, with other tensors to be read later) whose gradients are taken at once: what only they need
 * is freed before the next summand begins. It enters the loss with factor 1.
 */
export function settle<T extends { loss: Tensor }>(body: () => T): T {
  return Tape.settle(body);
}

/** Called by every op: notes its output, inputs and gradient on the active tape, if any. Returns the output. */
export function record(output: Tensor, inputs: (Tensor | null)[], gradient: Gradient): Tensor {
  active?.add({ output, inputs, gradient });
  return output;
}

/** Whether a gradient of this tensor will be asked for: lets an op skip work for inputs that need none. */
export function needsGradient(tensor: Tensor | null): boolean {
  return active?.needs(tensor) ?? false;
}
