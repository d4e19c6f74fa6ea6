/** Named parameters of a network: made once, trained in place, saved under the published names. */
import { UserError } from "../errors.ts";
import { Rng } from "../rng.ts";
import { Tensor } from "../tensor.ts";

/** Values as files hold them. */
export interface Values {
  shape: number[];
  data: Float32Array;
}

/** Parameters by name, in the order of making. */
export class Parameters implements Disposable {
  readonly tensors = new Map<string, Tensor>();
  readonly shapes = new Map<string, number[]>();

  /** @param seed of the initial values, each a function of (seed, name) alone */
  constructor(readonly seed: number) {}

  /** Makes a parameter; rows are the first axis. `value` draws one initial value. */
  add(name: string, shape: number[], value: (rng: Rng) => number): Tensor {
    return this.make(name, shape, (rng, rows, channels) => {
      const data = new Float32Array(rows * channels);
      for (let i = 0; i < data.length; i++) data[i] = value(rng);
      return Tensor.from(data, channels);
    });
  }

  /** Makes a parameter of values from U(-bound, bound). */
  uniform(name: string, shape: number[], bound: number): Tensor {
    return this.make(name, shape, (rng, ...size) => Tensor.uniform(rng, -bound, bound, ...size));
  }

  /** Where all parameters come from: draws one, keeps it, returns it. */
  protected make(
    name: string,
    shape: number[],
    draw: (rng: Rng, rows: number, channels: number) => Tensor,
  ): Tensor {
    if (this.tensors.has(name)) throw new Error(`parameter ${name} exists`);
    const length = shape.reduce((a, b) => a * b, 1);
    const rows = shape.length > 1 ? shape[0] : 1;
    const tensor = draw(new Rng(this.seed, "init", name), rows, length / rows);
    this.tensors.set(name, tensor);
    this.shapes.set(name, shape);
    return tensor;
  }

  /**
   * A weight and a bias from U(-1/sqrt(fan), 1/sqrt(fan)), the default of the published pretraining networks; or with `he`
   * a weight from N(0, 2 / (1.0001 fan)), He initialisation for a leaky slope of 0.01, and a bias of 0.
   */
  affine(
    name: string,
    shape: number[],
    fan: number,
    outputs: number,
    bias = true,
    he = false,
  ): { weight: Tensor; bias: Tensor | null } {
    if (he) {
      const std = Math.sqrt(2 / (1.0001 * fan));
      return {
        weight: this.add(`${name}.weight`, shape, (rng) => std * rng.normal()),
        bias: bias ? this.add(`${name}.bias`, [outputs], () => 0) : null,
      };
    }
    const bound = 1 / Math.sqrt(fan);
    return {
      weight: this.uniform(`${name}.weight`, shape, bound),
      bias: bias ? this.uniform(`${name}.bias`, [outputs], bound) : null,
    };
  }

  /** Frees the parameters that `wanted` does not name. */
  keep(wanted: (name: string) => boolean): void {
    for (const [name, tensor] of this.tensors) {
      if (wanted(name)) continue;
      tensor[Symbol.dispose]();
      this.tensors.delete(name);
      this.shapes.delete(name);
    }
  }

  /** Number of values in all parameters whose name starts with `prefix`. */
  count(prefix = ""): number {
    let sum = 0;
    for (const [name, tensor] of this.tensors) if (name.startsWith(prefix)) sum += tensor.length;
    return sum;
  }

  /** The values for a file. Blocks until the queue is done. */
  values(): Map<string, Values> {
    return new Map(
      [...this.tensors].map(([name, t]) => [name, { shape: this.shapes.get(name)!, data: t.read() }]),
    );
  }

  /** Overwrites parameters that `values` names; returns the names that were loaded. @throws UserError on another shape */
  load(values: Map<string, Values>, file: string, wanted: (name: string) => boolean = () => true): string[] {
    const loaded: string[] = [];
    for (const [name, tensor] of this.tensors) {
      const found = values.get(name);
      if (!found || !wanted(name)) continue;
      const shape = this.shapes.get(name)!;
      if (found.shape.join() !== shape.join()) {
        throw new UserError(`${file}: ${name} has shape [${found.shape}], this network needs [${shape}]`);
      }
      tensor.write(found.data);
      loaded.push(name);
    }
    return loaded;
  }

  [Symbol.dispose](): void {
    for (const tensor of this.tensors.values()) tensor[Symbol.dispose]();
  }
}
