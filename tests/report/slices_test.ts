import { assertEquals, assertRejects } from "@std/assert";
import { png } from "../../lib/report/png.ts";
import { Canvas, page, percentileWindow, planeSize } from "../../lib/report/slices.ts";

/** Splits a PNG into chunks and inflates its rows. */
async function rows(file: Uint8Array<ArrayBuffer>) {
  const view = new DataView(file.buffer);
  const types: string[] = [];
  let data = new Uint8Array();
  for (let at = 8; at < file.length; at += 12 + view.getUint32(at)) {
    const type = new TextDecoder().decode(file.subarray(at + 4, at + 8));
    types.push(type);
    if (type === "IDAT") data = file.slice(at + 8, at + 8 + view.getUint32(at));
  }
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate"));
  return { types, bytes: [...new Uint8Array(await new Response(stream).arrayBuffer())] };
}

Deno.test("png: signature, chunks, rows", async () => {
  const file = await png(2, 1, Uint8Array.of(1, 2, 3, 4, 5, 6));
  assertEquals([...file.subarray(0, 8)], [137, 80, 78, 71, 13, 10, 26, 10]);
  assertEquals([...file.subarray(-4)], [0xae, 0x42, 0x60, 0x82], "the CRC of IEND in the standard");
  assertEquals(await rows(file), { types: ["IHDR", "IDAT", "IEND"], bytes: [0, 1, 2, 3, 4, 5, 6] });
  await assertRejects(() => png(2, 2, new Uint8Array(3)), Error, "2 x 2");
});

Deno.test("slices: planes of a volume, far end up", () => {
  const values = Float32Array.from({ length: 24 }, (_, i) => i);
  const shape = [2, 3, 4];
  const reds = (c: Canvas) => Array.from({ length: c.width * c.height }, (_, i) => c.rgb[3 * i]);
  const draw = (plane: 0 | 1 | 2, index: number) => {
    const canvas = new Canvas(...planeSize(shape, plane, 1));
    canvas.gray(values, shape, plane, index, 0, 0, 1, [0, 255]);
    return reds(canvas);
  };
  assertEquals(draw(0, 1), [20, 21, 22, 23, 16, 17, 18, 19, 12, 13, 14, 15]);
  assertEquals(draw(1, 2), [20, 21, 22, 23, 8, 9, 10, 11]);
  assertEquals(draw(2, 3), [15, 19, 23, 3, 7, 11]);
});

Deno.test("slices: a box outline and its slice", () => {
  const canvas = new Canvas(4, 4);
  const box = [0, 0, 1, 1, 2, 4];
  canvas.box(box, [4, 4, 4], 0, 0, 0, 1, [9, 0, 0], 3);
  assertEquals(canvas.rgb.every((v) => v === 0), true, "slice 3 misses the box");
  canvas.box(box, [4, 4, 4], 0, 0, 0, 1, [9, 0, 0], 0);
  const drawn = Array.from({ length: 16 }, (_, i) => canvas.rgb[3 * i] ? 1 : 0);
  assertEquals(drawn, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1]);
});

Deno.test("slices: window by percentiles, page size", () => {
  const values = Float32Array.from({ length: 1001 }, (_, i) => i);
  assertEquals(percentileWindow(values), [5, 995]);
  assertEquals(percentileWindow(Float32Array.of(NaN)), [0, 1]);
  assertEquals(percentileWindow(new Float32Array(8))[1] > 0, true);
  const panel = { values: new Float32Array(24), shape: [2, 3, 4] as [number, number, number] };
  const canvas = page([[panel, panel], [panel]], 2, 4);
  assertEquals([canvas.width, canvas.height], [4 + 2 * (8 + 8 + 6 + 12), 4 + 2 * (6 + 4)]);
});
