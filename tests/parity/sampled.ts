/** Tensors of which a fixture holds the largest value, the L2 norm and up to 64 values (fixtures/make_networks.py). */
import { assertEquals } from "@std/assert";
import { decode, type Tensor } from "../../lib/data/safetensors.ts";

/** What a fixture holds, by name, and the version of PyTorch that made it. */
export interface Fixture {
  tensors: Map<string, Tensor>;
  metadata: Record<string, string>;
}

/** Reads `fixtures/<name>.safetensors`. */
export function fixture(name: string): Fixture {
  const file = new URL(`../../fixtures/${name}.safetensors`, import.meta.url);
  return decode(Deno.readFileSync(file), file.pathname);
}

/** Largest error of `values` against `wanted`, relative to its largest value (at least `floor`); of up to `count` values. */
export function sampledError(wanted: Float32Array, values: Float32Array, floor = 0, count = 64): number {
  const [largest, norm, ...sample] = wanted;
  const every = Math.ceil(values.length / count);
  assertEquals(Math.ceil(values.length / every), sample.length);
  const length = Math.sqrt(values.reduce((sum, v) => sum + v * v, 0));
  const size = Math.max(largest, floor);
  return sample.reduce(
    (most, want, i) => Math.max(most, Math.abs(values[i * every] - want) / size),
    Math.abs(length - norm) / Math.max(norm, floor),
  );
}
