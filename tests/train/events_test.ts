import { assertEquals } from "@std/assert";
import { crc32c } from "../../lib/data/crc32c.ts";
import { EventWriter, record, validLength } from "../../lib/train/events.ts";

Deno.test("events: CRC32C of RFC 3720 B.4", () => {
  assertEquals(crc32c(new Uint8Array(32)), 0x8a9136aa);
  assertEquals(crc32c(new Uint8Array(32).fill(255)), 0x62a8ab43);
});

Deno.test("events: bytes equal tensorboard's", async () => {
  const golden = await Deno.readFile(new URL("../../fixtures/events.bin", import.meta.url));
  const ours = [
    record(1700000000.25, 0, {}, "brain.Event:2"),
    record(1700000001.5, 1, { loss: 1.25, lr: 0 }),
    record(1700000002.75, 3_000_000_000, { "loss/reconstruction é": -0.1 }),
  ];
  assertEquals(ours.flatMap((bytes) => [...bytes]), [...golden]);
  assertEquals(validLength(golden, 2), ours[0].length + ours[1].length);
  assertEquals(validLength(golden, 4e9), golden.length);
  assertEquals(validLength(golden.subarray(0, -1), 4e9), ours[0].length + ours[1].length);
});

Deno.test("events: reopen drops later steps and a torn end", async () => {
  const folder = await Deno.makeTempDir();
  const file = () => [...Deno.readDirSync(folder)].map((e) => Deno.readFileSync(`${folder}/${e.name}`));
  const writer = await EventWriter.create(folder);
  for (let step = 1; step <= 3; step++) writer.write(step, { loss: 1 / step });
  writer.close();
  const name = [...Deno.readDirSync(folder)][0].name;
  await Deno.writeFile(`${folder}/${name}`, new Uint8Array([9, 0, 0]), { append: true });
  const size = (step: number) => validLength(file()[0], step);
  const two = size(2);
  const again = await EventWriter.reopen(folder, 2);
  again.write(3, { loss: 9 });
  again.close();
  assertEquals(file().length, 1);
  assertEquals(size(2), two);
  assertEquals(size(3), file()[0].length);
  await Deno.remove(folder, { recursive: true });
});
