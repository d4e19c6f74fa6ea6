/** Parameters without drawing: shapes alone, or the values of the documented forwards. */
import { Parameters } from "../../lib/nn/parameters.ts";
import { Grid, type Side, Tensor, volume } from "../../lib/tensor.ts";

/** Value j of the formula: ((7919 j + 104729 h) mod 1000003) / 1000003 - 1/2. */
export const formula = (j: number, h: number) => ((7919 * j + 104729 * h) % 1000003) / 1000003 - 0.5;

/** Parameters that keep shapes and names but no values: a network of any size in no time. */
export class Shapes extends Parameters {
  protected override make(name: string, shape: number[]): Tensor {
    this.shapes.set(name, shape);
    return undefined as unknown as Tensor;
  }
  /** Values of the parameters whose names begin with `prefix`. */
  size(prefix = ""): number {
    return [...this.shapes].reduce(
      (n, [name, shape]) => n + (name.startsWith(prefix) ? shape.reduce((a, b) => a * b, 1) : 0),
      0,
    );
  }
  /** Hash of all names and shapes; `more` are entries of the published file that are no parameters. */
  async signature(more: [string, number[]][] = []): Promise<string> {
    const lines = [...this.shapes, ...more].map(([name, shape]) => `${name}|${shape}\n`).sort().join("");
    const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(lines)));
    return [...hash.subarray(0, 8)].map((b) => b.toString(16).padStart(2, "0")).join("");
  }
}

/** Parameters with the values of the formula. */
export class Filled extends Parameters {
  protected override make(name: string, shape: number[]): Tensor {
    const h = [...name].reduce((sum, c) => sum + c.charCodeAt(0), 0) % 97;
    const inner = shape.slice(1).reduce((a, b) => a * b, 1);
    const [scale, offset] = shape.length > 1
      ? [Math.sqrt(24 / inner), 0]
      : /(weight|bias)$/.test(name)
      ? [0.2, name.endsWith("weight") ? 1 : 0]
      : [0.02, 0.1];
    const data = new Float32Array(shape[0] * inner);
    for (let j = 0; j < data.length; j++) data[j] = offset + scale * formula(j, h);
    const tensor = Tensor.from(data, shape.length > 1 ? inner : data.length);
    this.tensors.set(name, tensor);
    this.shapes.set(name, shape);
    return tensor;
  }
}

/** One image of these values. */
export function image(side: Side, value: (j: number) => number): Tensor {
  const data = Float32Array.from({ length: volume(side) }, (_, j) => value(j));
  return Tensor.from(data, 1, { grid: Grid.dense(1), side });
}

/** The input of the documented forwards. */
export const documented = (side: Side) => image(side, (j) => formula(j, 17 / 104729));

/** Mean, standard deviation, values 0, 12345 and the last, as documented. */
export function summary(y: Float32Array): number[] {
  const mean = y.reduce((a, b) => a + b) / y.length;
  const std = Math.sqrt(y.reduce((s, v) => s + (v - mean) ** 2, 0) / y.length);
  return [mean, std, y[0], y[12345], y[y.length - 1]];
}
