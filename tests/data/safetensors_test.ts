import { assertEquals, assertThrows } from "@std/assert";
import { UserError } from "../../lib/errors.ts";
import { decode, encode } from "../../lib/data/safetensors.ts";

Deno.test("safetensors: reads what the safetensors package wrote", async () => {
  const bytes = await Deno.readFile(new URL("../../fixtures/mixed.safetensors", import.meta.url));
  const { tensors, metadata } = decode(bytes, "mixed.safetensors");
  assertEquals(metadata, { licence: "CC0", config: '{"é": 1}' });
  const stem = tensors.get("encoder.stem.weight")!;
  assertEquals(stem.shape, [2, 3, 4]);
  assertEquals([...stem.data], Array.from({ length: 24 }, (_, i) => Math.fround(i / 7)));
  const halves = [0, -0, 1, -2.5, 65504, 2 ** -24, 168 * 2 ** -24, Infinity, -Infinity, 1638 * 2 ** -14];
  assertEquals([...tensors.get("half")!.data], halves);
  assertEquals(Object.is(tensors.get("half")!.data[1], -0), true);
  const brain = [1, -3.140625, Math.fround(1e30), 0.10009765625];
  tensors.get("brain")!.data.forEach((v, i) => assertEquals(Math.abs(v / brain[i] - 1) < 2 ** -8, true));
  assertEquals(tensors.get("brain")!.data[3], 0.10009765625);
  assertEquals(tensors.get("scalar"), { shape: [], data: Float32Array.of(2.5) });
  assertEquals(tensors.get("empty"), { shape: [0, 3], data: new Float32Array() });
});

const tensors = new Map([
  ["b", { shape: [2, 2], data: Float32Array.of(1, 2, NaN, -0) }],
  ["a.é", { shape: [], data: Float32Array.of(7) }],
  ["none", { shape: [0], data: new Float32Array() }],
]);

Deno.test("safetensors: a round trip keeps bits; order of insertion does not matter", () => {
  const bytes = encode(tensors, { licence: "CC0", config: "{}" });
  const back = decode(bytes, "x");
  assertEquals(back.metadata, { licence: "CC0", config: "{}" });
  assertEquals(new Map([...back.tensors].sort()), new Map([...tensors].sort()));
  assertEquals(encode(new Map([...tensors].reverse()), { config: "{}", licence: "CC0" }), bytes);
  assertEquals(decode(encode(new Map()), "x"), { tensors: new Map(), metadata: {} });
  const odd = new Uint8Array(bytes.length + 3);
  odd.set(bytes, 3);
  assertEquals(decode(odd.subarray(3), "x").tensors.get("a.é"), tensors.get("a.é"), "any alignment");
});

/** A file with `header` and `size` bytes of values. */
function file(header: unknown, size: number): Uint8Array {
  const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + text.length + size);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  return bytes;
}

Deno.test("safetensors: broken files are refused in one sentence", () => {
  const f32 = (shape: unknown, ...data_offsets: unknown[]) => ({ dtype: "F32", shape, data_offsets });
  const cases: [Uint8Array, string][] = [
    [new Uint8Array(7), "too few"],
    [new Uint8Array(8).fill(255), "header length"],
    [file("{", 0), "not JSON"],
    [file([1], 0), "not a JSON object"],
    [file("null", 0), "not a JSON object"],
    [file({ __metadata__: { a: 1 } }, 0), "__metadata__"],
    [file({ a: null }, 0), '"a" lacks'],
    [file({ a: f32([1.5], 0, 6) }, 6), '"a" lacks'],
    [file({ a: f32([-1], 0, 4) }, 4), '"a" lacks'],
    [file({ a: f32([1], 0) }, 4), '"a" lacks'],
    [file({ a: { dtype: "I64", shape: [1], data_offsets: [0, 8] } }, 8), "I64"],
    [file({ a: f32([2], 0, 8) }, 4), "ends at byte 8 of 4"],
    [file({ a: f32([2], 0, 4) }, 4), "has 4 bytes"],
    [file({ a: f32([2 ** 40, 2 ** 40], 0, 4) }, 4), "has 4 bytes"],
    [file({ a: f32([2], 0, 8), b: f32([1], 4, 8) }, 8), "overlap"],
    [file({ a: f32([1], 4, 8) }, 8), "gap"],
    [file({ a: f32([1], 0, 4) }, 8), "4 bytes belong"],
  ];
  for (const [bytes, words] of cases) assertThrows(() => decode(bytes, "w.safetensors"), UserError, words);
  assertThrows(() => encode(new Map([["a", { shape: [3], data: new Float32Array(2) }]])), Error, "[3]");
});
